"""A single clip: cut exactly, square, at its rate, with its sound."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import write_clip, write_frames, write_gif, write_sound
from PIL import Image
from written_media import frames, track

from fommctl.api import Box, ClipRecord, FommctlError
from fommctl.media.reader import Reader
from fommctl.media.resampling import resize
from fommctl.preprocess.clip import ClipJob, ClipOptions, WrittenClip, make_clip, nominal_rate, squared
from fommctl.preprocess.manifest import measure

NTSC = Fraction(30000, 1001)


def shade(index: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 + 8 * (index % 28), np.uint8)


def make(target: Path, *, size: int = 16, fit: str = "pad", audio: bool = True, **record) -> WrittenClip:
    options = ClipOptions(size=size, format=target.suffix.removeprefix(".") or "png", fit=fit, audio=audio)
    return make_clip(ClipJob(record=ClipRecord(name="c", identity="i", **record), target=target, options=options))


def levels(folder: Path) -> list[int]:
    """Return the shade of each picture in a folder, by index."""
    return [round((float(np.asarray(Image.open(path)).mean()) - 20) / 8) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), NTSC])
def test_cuts_are_exact(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    """Times as data sets have them: a frame's time as a float, in single precision, or with three digits."""
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = write_clip(tmp_path / f"raw{suffix}", frames=12, rate=rate, draw=shade, codec=codec)
    start, end = 4 / rate, 9 / rate
    for number, (first, last) in enumerate(
        [
            (float(start), float(end)),
            (float(np.float32(start)), float(np.float32(end))),
            (round(float(start), 3), round(float(end), 3)),
        ]
    ):
        made = make(tmp_path / str(number), path=path, start=first, end=last)
        assert levels(tmp_path / str(number)) == [4, 5, 6, 7, 8]
        assert (made.frames, float(made.rate)) == (5, pytest.approx(float(rate), rel=1e-3))
    make(tmp_path / "open", path=path, start=float(start))
    assert levels(tmp_path / "open") == list(range(4, 12))


def test_rate_times_and_sound_of_a_cut(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "raw.mp4", frames=40, rate=NTSC, draw=shade, audio=("aac",))
    made = make(tmp_path / "c.mp4", path=raw, start=float(10 / NTSC), end=float(30 / NTSC))
    assert made == WrittenClip(frames=20, rate=NTSC, measure=measure(tmp_path / "c.mp4"), warnings=())
    assert track(tmp_path / "c.mp4").times == [index / NTSC for index in range(20)]
    sound, original = track(tmp_path / "c.mp4", "audio"), track(raw, "audio")
    first = original.payloads.index(sound.payloads[0])
    assert sound.payloads == original.payloads[first : first + len(sound.payloads)]  # bit for bit
    # The packet at time 0 is the one that the raw file plays at the start of the cut.
    assert abs(sound.times[0] - (original.times[first] - 10 / NTSC)) < Fraction(1, 1000)
    assert abs(len(sound.payloads) * Fraction(1024, 44100) - 20 / NTSC) < Fraction(3 * 1024, 44100)
    make(tmp_path / "mute.mp4", path=raw, audio=False)
    with pytest.raises(StopIteration):
        track(tmp_path / "mute.mp4", "audio")


def test_the_same_clip_has_the_same_bytes(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "raw.mp4", audio=("aac",))
    one, other = (make(tmp_path / f"{name}.mp4", path=raw) for name in "ab")
    assert one.measure == other.measure


def test_boxes_are_cut_and_beyond_the_picture_its_border_continues(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    raw = write_frames(tmp_path / "raw", [picture] * 2)
    make(tmp_path / "inside", path=raw, box=Box(10, 20, 26, 36))
    read = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "inside").iterdir())]
    np.testing.assert_array_equal(read, [picture[20:36, 10:26]] * 2)
    make(tmp_path / "beyond", path=raw, box=Box(-4, -4, 12, 12))
    read = np.asarray(Image.open(tmp_path / "beyond/0000001.png"))
    np.testing.assert_array_equal(read[4:, 4:], picture[:12, :12])
    np.testing.assert_array_equal(read[:4, 4:], np.repeat(picture[:1, :12], 4, 0))
    make(tmp_path / "smaller", path=raw, box=Box(0, 0, 48, 48))
    read = np.asarray(Image.open(tmp_path / "smaller/0000001.png"))
    np.testing.assert_array_equal(read, resize(picture, (16, 16), Box(0, 0, 48, 48)))
    # Measured in frames of half the size.
    make(tmp_path / "scaled", path=raw, box=Box(5, 10, 13, 18), box_frame=(32, 24))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "scaled/0000001.png")), picture[20:36, 10:26])


@pytest.mark.parametrize(
    ("box", "fit", "expected"),
    [
        (None, "pad", Box(0, -8, 64, 56)),
        (None, "crop", Box(8, 0, 56, 48)),
        (None, "stretch", None),
        (Box(10, 0, 20, 40), "pad", Box(-5, 0, 35, 40)),
        (Box(10, 0, 20, 40), "crop", Box(10, 15, 20, 25)),
        (Box(10, 0, 20, 40), "stretch", Box(10, 0, 20, 40)),
        (Box(1.2, 2.2, 9.2, 10.3), "pad", Box(1.2, 2.2, 9.2, 10.3)),
    ],
)
def test_other_shapes_become_squares(box: Box | None, fit: str, expected: Box | None) -> None:
    assert squared(box, 64, 48, fit) == expected


def test_made_frames_are_cut_by_their_rate_and_resized(tmp_path: Path) -> None:
    def pictures():
        return (shade(index) for index in range(9))

    made = make(tmp_path / "c", frames=pictures, rate=10.0, start=0.3, end=0.6)
    assert levels(tmp_path / "c") == [3, 4, 5]
    assert (made.frames, made.rate) == (3, 10)
    assert np.asarray(Image.open(tmp_path / "c/0000001.png")).shape == (16, 16, 3)


def test_rates() -> None:
    rates = {
        None: 25,
        29.97002997002997: NTSC,
        30: 30,
        12.5: Fraction(25, 2),
        Fraction(24000, 1001): Fraction(24000, 1001),
    }
    for given, expected in rates.items():
        assert nominal_rate(ClipRecord(name="c", identity="i", rate=given)) == expected


def test_stills_gifs_and_strips(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", [shade(index) for index in range(4)], [40] * 4)
    assert make(tmp_path / "gif", path=tmp_path / "a.gif").frames == 4
    assert levels(tmp_path / "gif") == [0, 1, 2, 3]
    Image.fromarray(np.concatenate([shade(index)[:, :48] for index in range(5)], axis=1)).save(tmp_path / "strip.png")
    assert make(tmp_path / "strip", path=tmp_path / "strip.png", rate=10).rate == 10
    assert levels(tmp_path / "strip") == [0, 1, 2, 3, 4]
    Image.fromarray(shade(3)).save(tmp_path / "one.png")
    assert make(tmp_path / "one.mp4", path=tmp_path / "one.png").frames == len(frames(tmp_path / "one.mp4")) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"start": 5.0}, "no readable frame"),
        ({"start": -1.0}, "invalid times: -1.0 s to the end"),
        ({"start": 2.0, "end": 1.0}, "invalid times: 2.0 s to 1.0 s"),
        ({"end": float("nan")}, "invalid times: 0.0 s to nan s"),
        ({"box": Box(100, 0, 140, 40)}, "outside the picture of 64x48"),
        ({"box": Box(0, 0, float("nan"), 4)}, "outside the picture"),
        ({"box": Box(0, 0, 1e9, 1e9)}, "larger than"),
        ({"rate": -1.0}, "invalid frame rate -1.0"),
        ({"rate": float("nan")}, "invalid frame rate nan"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, record: dict, message: str) -> None:
    raw = write_clip(tmp_path / "raw.mp4", frames=4)
    for target in (tmp_path / "c.mp4", tmp_path / "c"):
        with pytest.raises(FommctlError, match=message):
            make(target, path=raw, **record)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.mp4"]


@pytest.mark.parametrize("broken", ["empty", "text", "sound", "folder"])
def test_unreadable_files_are_input_errors(tmp_path: Path, broken: str) -> None:
    raw = tmp_path / "raw.mp4"
    if broken == "folder":
        raw.mkdir()
    elif broken == "sound":
        write_sound(raw)
    else:
        raw.write_text("" if broken == "empty" else "<html>404</html>")
    with pytest.raises(FommctlError) as caught:
        make(tmp_path / "c.mp4", path=raw)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("picture", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_made_frames_have_to_be_pictures(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(FommctlError, match="frame 0 is"):
        make(tmp_path / "c.mp4", frames=lambda: iter([picture]))
    with pytest.raises(FommctlError, match="no frame"):
        make(tmp_path / "c.mp4", frames=lambda: iter([]))


def test_frames_are_those_of_the_reader(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "raw.mp4", frames=5)
    make(tmp_path / "c", path=raw, size=32, box=Box(3, 3, 45, 45))
    expected = [frame.pixels for frame in Reader(raw, box=Box(3, 3, 45, 45), size=(32, 32))]
    np.testing.assert_array_equal(
        [np.asarray(Image.open(path)) for path in sorted((tmp_path / "c").iterdir())], expected
    )
