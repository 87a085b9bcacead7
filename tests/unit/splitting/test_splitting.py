"""A driving video rendered in segments gives the file that rendering it in one piece gives, bit for bit."""

import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from batches import GOLDEN, hidden
from media_factory import truncate, write_clip, write_frames, write_gif
from shots import portrait

import fommctl
from fommctl.animate import preparation, shot
from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig
from fommctl.animate.splitting import planning, segments
from fommctl.animate.splitting.segments import NotAsPlannedError
from fommctl.animate.splitting.steps import Begin, DividedRun, Join, Look, Remember, Render, run_divided
from fommctl.detection.framing import ClipSquare
from fommctl.errors import OutputError
from fommctl.media.boxes import Box
from fommctl.media.decoding import Decoder

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES = 45
NOISE = np.random.default_rng(5).integers(0, 255, (64, 64 + 4 * FRAMES, 3), np.uint8)
TIMES = [Fraction(int(tick), 90000) for tick in np.random.default_rng(1).integers(900, 9000, FRAMES).cumsum()]
OPEN_GOP = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"
DRIVING = {
    "b-frames.mp4": {"options": {"g": "12", "bf": "3"}, "audio": ("aac",)},
    "open-gop.mp4": {"options": {"x264-params": OPEN_GOP}},
    "uneven.mp4": {"times": TIMES, "audio": ("aac",)},
    "late.mkv": {"start": Fraction(7, 3), "audio": ("aac",), "audio_start": Fraction(7, 3)},
    "broadcast.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
}


def drawn(index: int) -> np.ndarray:
    return np.ascontiguousarray(NOISE[:, 4 * index : 4 * index + 64])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("driving")
    portrait(folder / "a.png", 64)
    for name, options in DRIVING.items():
        write_clip(folder / name, width=64, height=64, frames=FRAMES, draw=drawn, **options)
    pictures = [drawn(index) for index in range(FRAMES)]
    write_frames(folder / "pictures", pictures)
    write_gif(folder / "moving.gif", pictures, [10 * (2 + index % 5) for index in range(FRAMES)])
    return folder


@pytest.fixture(scope="module")
def animator():
    model, preset = GOLDEN / "vox-tiny.pth.tar", GOLDEN / "vox-tiny.model_params.yaml"
    return fommctl.load(model, preset=str(preset), device="cpu", precision="fp32")


def config_of(folder: Path, output: Path, driving: str = "b-frames.mp4", **options) -> AnimateConfig:
    return AnimateConfig(
        source=folder / "a.png", driving=folder / driving, output=output, **{"crop": "none", **options}
    )


def both(folder: Path, tmp_path: Path, animator, pieces: int = 3, driving: str = "b-frames.mp4", **options):
    """Render in one piece and in several; returns both results and the kinds of steps. Steps travel as they would."""
    kinds = []

    def perform(step):
        kinds.append(type(step))
        result = pickle.loads(pickle.dumps(step))(animator)
        return pickle.loads(pickle.dumps(result))

    one = animate.run(config_of(folder, tmp_path / "one.mkv", driving, **options), animator)
    several = run_divided(config_of(folder, tmp_path / "several.mkv", driving, **options), animator, pieces, perform)
    assert (tmp_path / "several.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    assert several.frames == one.frames
    assert several.audio == one.audio
    assert several.warnings == one.warnings
    assert hidden(tmp_path) == []
    return one, several, kinds


@pytest.mark.parametrize("driving", [*DRIVING, "pictures", "pictures/%05d.png", "moving.gif"])
def test_the_file_is_that_of_one_piece(folder, tmp_path, animator, driving):
    result, _, kinds = both(folder, tmp_path, animator, driving=driving)
    assert result.frames == FRAMES
    assert kinds == [Begin, Render, Render, Render, Join]


@pytest.mark.parametrize("driving", ["b-frames.mp4", "uneven.mp4", "moving.gif", "pictures"])
@pytest.mark.parametrize(
    "options",
    [
        {"fps": Fraction(60)},
        {"fps": Fraction(10), "start": Fraction("0.31"), "end": Fraction("1.43")},
        {"fps": Fraction(24000, 1001), "start": Fraction("0.2")},
        {"start": Fraction("0.31"), "end": Fraction("1.43")},
    ],
    ids=["repeated", "dropped-trimmed", "film", "trimmed"],
)
def test_rates_and_trims(folder, tmp_path, animator, driving, options):
    _, _, kinds = both(folder, tmp_path, animator, driving=driving, **options)
    assert kinds.count(Render) > 1


@pytest.mark.parametrize(("pieces", "batch_size"), [(2, 4), (5, 7), (100, 7), (5, 1)])
def test_any_number_of_segments_of_any_batch_size(folder, tmp_path, animator, pieces, batch_size):
    _, _, kinds = both(folder, tmp_path, animator, pieces, batch_size=batch_size)
    assert kinds.count(Render) == min(pieces, -(-FRAMES // batch_size))


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_smoothing_goes_on_where_the_segment_before_ends(folder, tmp_path, animator, motion):
    _, _, kinds = both(folder, tmp_path, animator, smooth=True, motion=motion, driving="uneven.mp4")
    assert kinds == [Begin, Look, Look, Look, Remember, Render, Render, Render, Join]


def test_keypoints_and_comparison(folder, tmp_path, animator):
    both(folder, tmp_path, animator, keypoints=True, fps=Fraction(30))


def test_pictures(folder, tmp_path, animator):
    (tmp_path / "one").mkdir()
    animate.run(config_of(folder, tmp_path / "one/%02d.png"), animator)
    run_divided(config_of(folder, tmp_path / "several/%02d.png"), animator, 4)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [path.name for path in sorted((tmp_path / "several").iterdir())] == names
    assert len(names) == FRAMES
    for name in names:
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert hidden(tmp_path) == []


def test_a_gif_is_rendered_in_one_piece(folder, tmp_path, animator):
    steps = []
    run_divided(
        config_of(folder, tmp_path / "several.gif"), animator, 3, lambda step: (steps.append(step), step(animator))[1]
    )
    animate.run(config_of(folder, tmp_path / "one.gif"), animator)
    assert [type(step) for step in steps] == [Begin]
    assert (tmp_path / "several.gif").read_bytes() == (tmp_path / "one.gif").read_bytes()


def test_no_segment_begins_without_a_subject(folder, animator, tmp_path):
    """There the pose of a frame before is held, which another segment has seen."""
    settled, plan = Begin(config_of(folder, tmp_path / "a.mkv"), 2, 1, tmp_path / "parts")(animator)
    (tmp_path / "parts").rmdir()
    assert [segment.begin for segment in plan.segments] == [0, Fraction(24, 25)]
    for absent, expected in (
        ((Fraction("0.9"), Fraction("1.05")), Fraction(20, 25)),
        ((Fraction("0.79"), Fraction("1.1")), Fraction(16, 25)),
        ((Fraction("0.1"), Fraction(2)), None),
    ):
        found = divided_with(settled, absent)
        assert (None if found is None else found.segments[1].begin) == expected


def divided_with(settled, absent):
    return planning.divide(replace(settled, shot=with_gaps(settled.shot, (absent,))), 2, 4)


def with_gaps(inputs, absent):
    """The inputs of a job, their subject missing in these intervals of the driving video."""
    whole = Box(0, 0, *inputs.driving_size)
    return replace(inputs, shots=(ClipSquare(whole, 1, 1.0, absent, ()),))


def test_held_poses_are_those_of_one_piece(folder, tmp_path, animator, monkeypatch):
    """With a subject that is missing in the middle of a segment, at its end, and where one would begin."""

    def plan(*arguments):
        gaps = (
            (Fraction("0.3"), Fraction("0.42")),
            (Fraction("0.5"), Fraction("0.7")),
            (Fraction("1.3"), Fraction("1.5")),
        )
        return with_gaps(shot.plan(*arguments), gaps)

    monkeypatch.setattr(preparation, "plan", plan)
    for number, options in enumerate(({}, {"on_missing": "skip"}, {"smooth": True})):
        place = tmp_path / str(number)
        place.mkdir()
        both(folder, place, animator, 4, **options)


def test_segments_are_read_from_where_they_begin(folder, tmp_path, animator, monkeypatch):
    """And not from the beginning of the file."""
    path = write_clip(tmp_path / "long.mp4", width=64, height=64, frames=150, options={"g": "10"})
    settled, plan = Begin(config_of(folder, tmp_path / "a.mkv", str(path)), 3, 1, tmp_path / "parts")(animator)
    seen = []
    reader = segments._open(settled, plan.segments[2])
    frames = Decoder.frames

    def counted(self):
        for decoded in frames(self):
            seen.append(decoded.time)
            yield decoded

    monkeypatch.setattr(Decoder, "frames", counted)
    assert len(list(segments._cues(reader, settled, plan, plan.segments[2]))) == 50
    first = next(time for time in seen if time > 0)
    assert first == 4  # the key frame there; the probe has looked at frame 0


def test_a_damaged_file_is_rendered_in_one_piece(folder, tmp_path, animator):
    """Its packets promise frames that the decoder does not give: the places of segments would be wrong."""
    path = tmp_path / "damaged.mkv"
    write_clip(path, codec="mjpeg", pix_fmt="yuvj420p", width=64, height=64, frames=40, draw=drawn)
    data = bytearray(path.read_bytes())
    pictures = [index for index in range(len(data) - 2) if data[index : index + 3] == b"\xff\xd8\xff"]
    assert len(pictures) == 40
    for number in (5, 6):
        first, after = pictures[number], pictures[number + 1] - 40
        data[first:after] = bytes(after - first)
    path.write_bytes(data)
    config = config_of(folder, tmp_path / "several.mkv", str(path))
    raised = []

    def perform(step):
        try:
            return step(animator)
        except NotAsPlannedError as error:
            raised.append(error)
            raise

    several = run_divided(config, animator, 3, perform)
    assert len(raised) == 1
    one = animate.run(config_of(folder, tmp_path / "one.mkv", str(path)), animator)
    assert one.frames == several.frames < 40
    assert (tmp_path / "several.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    assert hidden(tmp_path) == []


def test_a_file_that_is_cut_short(folder, tmp_path, animator):
    path = write_clip(
        tmp_path / "cut.mp4", width=64, height=64, frames=60, draw=drawn_twice,
        options={"g": "10"}, container_options={"movflags": "faststart"},
    )  # fmt: skip
    truncate(path, 0.7)
    several = run_divided(config_of(folder, tmp_path / "several.mkv", str(path)), animator, 3)
    one = animate.run(config_of(folder, tmp_path / "one.mkv", str(path)), animator)
    assert several.frames == one.frames < 60
    assert (tmp_path / "several.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    assert several.warnings == one.warnings


def drawn_twice(index: int) -> np.ndarray:
    return drawn(index % FRAMES)


def test_a_segment_can_be_rendered_again(folder, tmp_path, animator):
    """After a part of it was written by a process that was lost."""
    tries = []

    def perform(step):
        if isinstance(step, Render) and step.segment.number == 1 and not tries:
            tries.append(step)
            (step.folder / ".00001.fommctl-00000000-1.tmp").write_bytes(b"half")
            step(animator)
        return step(animator)

    run_divided(config_of(folder, tmp_path / "several.mkv"), animator, 3, perform)
    animate.run(config_of(folder, tmp_path / "one.mkv"), animator)
    assert tries
    assert (tmp_path / "several.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("kind", [Render, Join])
def test_what_fails_leaves_nothing(folder, tmp_path, animator, kind):
    def perform(step):
        if isinstance(step, kind):
            raise OutputError("the disk is full")
        return step(animator)

    with pytest.raises(OutputError):
        run_divided(config_of(folder, tmp_path / "out.mkv"), animator, 3, perform)
    assert list(tmp_path.iterdir()) == []


def test_filters_of_plugins_are_told_the_number_of_each_frame(folder, tmp_path, animator, monkeypatch):
    numbers = []

    def filters(event):
        return [lambda frame, index: (numbers.append(index), frame)[1]]

    monkeypatch.setattr(type(animator.host), "frame_filters", lambda self, event: filters(event))
    run_divided(config_of(folder, tmp_path / "out.mkv", fps=Fraction(60)), animator, 3)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) == 108


def test_progress_is_that_of_the_whole(folder, tmp_path, animator):
    divided = DividedRun(config_of(folder, tmp_path / "out.mkv"), 3)
    try:
        (step,) = divided.steps()
        divided.done(step, step(animator))
        renders = divided.steps()
        assert divided.progress(renders[0], 4) == (4, FRAMES)
        assert divided.progress(renders[2], 8) == (12, FRAMES)
        assert divided.progress(renders[0], 16) == (24, FRAMES)
    finally:
        divided.close()
