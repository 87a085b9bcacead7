"""A result that was written in parts is the one that is written in one go: the very file for codecs whose frames stand
alone; for others every frame at its time, and the sound."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import moving_square, write_clip
from written_media import frames, metadata, spans, tags, track, uneven_spans

from fommctl.errors import InputError, OutputError
from fommctl.media.joining import JoiningWriter, Part, PartWriter, can_join
from fommctl.media.marking import Mark
from fommctl.media.probe import probe
from fommctl.media.writer import AudioSource, Writer

RATE = Fraction(25)
COUNT = 30
CUTS = (8, 9, 20)
"""Parts of 8, 1, 11 and 10 frames: one is shorter than any encoder looks ahead."""
TIMELINES = {"even": spans(RATE, COUNT), "uneven": uneven_spans(Fraction(1, 90000), COUNT)}
MARK = Mark("1.0", "model", "preset")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = write_clip(tmp_path_factory.mktemp("sound") / "s.mp4", frames=COUNT, rate=RATE, audio=("aac",))
    info = probe(path)
    return AudioSource(path, info.audio[0].index, info.origin)


def in_one(path: Path, timeline, **options) -> Path:
    with Writer(path, width=64, height=48, rate=RATE, mark=MARK, **options) as writer:
        for index, span in enumerate(timeline):
            writer.write(moving_square(index), *span)
    return path


def parts_of(path: Path, timeline, cuts=CUTS, **options) -> list[Part]:
    parts: list[Part] = []
    parts_folder = path.parent.with_name(f"parts of {path.name.replace('%', '')}")
    parts_folder.mkdir(exist_ok=True)
    for number, (first, after) in enumerate(zip([0, *cuts], [*cuts, len(timeline)], strict=True)):
        part = parts_folder / f"part-{number}"
        with PartWriter(path, part, width=64, height=48, rate=RATE, mark=MARK, **options) as writer:
            for index in range(first, after):
                writer.write(moving_square(index), *timeline[index])
        parts.append(writer.part)
    return parts


def joined(path: Path, timeline, cuts=CUTS, **options) -> Path:
    parts = parts_of(path, timeline, cuts, **options)
    with JoiningWriter(path, width=64, height=48, rate=RATE, mark=MARK, **options) as writer:
        writer.join(parts)
    assert writer.frames_written == len(timeline)
    return path


@pytest.mark.parametrize("timeline", TIMELINES)
@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ffv1"), (".mov", "prores"), (".mkv", "prores")])
def test_the_file_is_the_same_where_frames_stand_alone(tmp_path, sound, suffix, codec, timeline):
    """With its sound, times, tags and metadata."""
    options = {"codec": codec, "audio": sound, "timecode": "01:00:00:00"}
    one = in_one(tmp_path / f"one{suffix}", TIMELINES[timeline], **options)
    several = joined(tmp_path / f"several{suffix}", TIMELINES[timeline], **options)
    assert track(several, "audio").payloads
    assert several.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("timeline", TIMELINES)
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "h264"), (".mkv", "h264"), (".mov", "h264"), (".mp4", "h265"), (".mp4", "av1"), (".webm", "vp9")],
)
def test_coded_frames_are_joined_in_their_places(tmp_path, sound, suffix, codec, timeline):
    options = {"codec": codec, "audio": sound}
    one = in_one(tmp_path / f"one{suffix}", TIMELINES[timeline], **options)
    several = joined(tmp_path / f"several{suffix}", TIMELINES[timeline], **options)
    mine, other = track(several), track(one)
    assert mine.times == other.times
    assert mine.codec == other.codec
    assert track(several, "audio") == track(one, "audio")
    assert tags(several) == tags(one)
    assert metadata(several).items() >= {"comment": MARK.comment}.items()
    pictures = frames(several)
    assert len(pictures) == COUNT
    # Coded anew from key frames of their own, not worse than in one piece.
    drawn = [moving_square(index) for index in range(COUNT)]
    assert distance(pictures, drawn) < 1.2 * distance(frames(one), drawn) + 0.2
    with av.open(str(several)) as container, av.open(str(one)) as whole:
        assert container.streams.video[0].duration == whole.streams.video[0].duration
        keys = sorted(packet.pts for packet in container.demux(video=0) if packet.is_keyframe)
        unit = container.streams.video[0].time_base
    assert {mine.times[cut] for cut in (0, *CUTS)} <= {key * unit for key in keys}


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(one, other, strict=True)]))


@pytest.mark.parametrize("cuts", [(1,), (1, 2), (29,)])
def test_parts_shorter_than_the_encoder_looks_ahead(tmp_path, cuts):
    """Even the first and the last."""
    timeline = TIMELINES["uneven"]
    one = in_one(tmp_path / "one.mp4", timeline)
    several = joined(tmp_path / "several.mp4", timeline, cuts)
    assert track(several).times == track(one).times
    assert len(frames(several)) == COUNT


def test_pictures_are_numbered_through(tmp_path):
    (tmp_path / "one").mkdir()
    in_one(tmp_path / "one/%03d.png", TIMELINES["even"])
    joined(tmp_path / "new/%03d.png", TIMELINES["even"])
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert len(names) == COUNT
    for name in names:
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_frames_that_meet_in_one_tick_of_the_container_keep_their_order_across_parts(tmp_path):
    """Matroska counts milliseconds; here are three frames in each."""
    timeline = [(Fraction(index, 3000), Fraction(1, 3000)) for index in range(COUNT)]
    one = in_one(tmp_path / "one.mkv", timeline)
    several = joined(tmp_path / "several.mkv", timeline)
    assert track(one).times == [Fraction(index, 1000) for index in range(COUNT)]
    assert several.read_bytes() == one.read_bytes()


def test_a_part_that_was_cut_short_is_no_part(tmp_path):
    parts = parts_of(tmp_path / "out.mkv", TIMELINES["even"])
    for length in (parts[2].path.stat().st_size - 3, 5):
        with open(parts[2].path, "rb+") as file:
            file.truncate(length)
        with (
            pytest.raises(InputError, match="cut short"),
            JoiningWriter(tmp_path / "out.mkv", width=64, height=48, rate=RATE) as writer,
        ):
            writer.join(parts)
        assert list(tmp_path.iterdir()) == []


def test_a_part_is_complete_or_not_there(tmp_path):
    def broken_off(name):
        with PartWriter(tmp_path / name, tmp_path / "part", width=64, height=48, rate=RATE) as writer:
            writer.write(moving_square(0), Fraction(0), 1 / RATE)
            raise KeyboardInterrupt

    for name in ("out.mkv", "out-%02d.png"):
        with pytest.raises(KeyboardInterrupt):
            broken_off(name)
        assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_gone_leaves_no_result(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/out.mkv", "in/out-%02d.png"):
        parts = parts_of(tmp_path / name, TIMELINES["even"], cuts=(10,))
        missing = Part(tmp_path / "gone", 20, Fraction(1), 0)
        with (
            pytest.raises(OutputError, match="no such file"),
            JoiningWriter(tmp_path / name, width=64, height=48, rate=RATE) as writer,
        ):
            writer.join([parts[0], missing])
        assert list((tmp_path / "in").iterdir()) == []


def test_what_cannot_be_joined():
    assert [can_join(Path(name)) for name in ("a.gif", "a.mkv", "a-%03d.png", "a.mp4")] == [False, True, True, True]
