"""Shots of a driving video and their squares, in clips of the astronaut's head on a canvas."""

from fractions import Fraction

import media_factory
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fommctl.detection.detectors import choose_detector
from fommctl.detection.framing import LOOSEST, crop_in_clip, excursions, room_in, source_crop
from fommctl.detection.shots import crops_in_clip
from fommctl.errors import InputError
from fommctl.media.reader import Clip

WIDTH = 0.52
HEAD = (127, 104)
"""Middle of the face in the cut-out below; it is about 92 pixels wide."""


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return skimage.data.astronaut()[20:260, 100:340]


@pytest.fixture
def thorough_hog(host):
    return choose_detector(host, "face", "dlib-hog")[1]


@pytest.fixture
def hog(thorough_hog, monkeypatch):
    """HOG with its first size only, which finds all whole faces here; the others take most of the time."""
    monkeypatch.setattr("fommctl_faces.hog.SIDES", (480,))
    return thorough_hog


def on(head: np.ndarray, left: float, top: float, *, colour=(120, 120, 120), angle: float = 0.0) -> np.ndarray:
    """Return a picture of 640 x 360 with the head at (left, top), rotated clockwise."""
    canvas = Image.new("RGB", (640, 360), colour)
    turned = Image.fromarray(head).rotate(-angle, Image.Resampling.BICUBIC, center=HEAD, fillcolor=colour)
    canvas.paste(turned, (round(left), round(top)))
    return np.array(canvas)


def clip_of(path, draw, frames):
    return Clip(media_factory.write_clip(path, width=640, height=360, frames=frames, draw=draw, options={"crf": "12"}))


@pytest.fixture(scope="module")
def crossing(head, tmp_path_factory) -> Clip:
    """Return frames of a head that crosses the picture, five pixels per frame."""
    path = tmp_path_factory.mktemp("crossing") / "cross.mp4"
    return clip_of(path, lambda number: on(head, -20 + 5 * number, 60), 80)


def test_a_head_that_stays_has_the_square_of_before(head, hog, tmp_path):
    clip = clip_of(tmp_path / "still.mp4", lambda number: on(head, 200 + 6 * np.sin(number / 3), 60), 30)
    (shot,) = crops_in_clip(clip, hog, WIDTH)
    assert shot.path is None
    assert shot.box == crop_in_clip(clip, hog, WIDTH).box
    (followed,) = crops_in_clip(clip, hog, WIDTH, driving_crop="follow")
    assert followed.path is not None
    assert followed.path.at(1.0).center[0] == pytest.approx(200 + HEAD[0], abs=12)


def test_a_head_that_crosses_the_picture_is_followed(crossing, hog):
    (shot,) = crops_in_clip(crossing, hog, WIDTH)
    assert shot.path is not None
    times = np.arange(80) / 25
    centers = [shot.path.at(time).center[0] for time in times]
    expected = -20 + 5 * np.arange(80) + HEAD[0]
    # By less than a tenth of the face's width.
    assert np.abs(centers - expected).max() < 9
    assert [shot.path.at(time).side for time in times] == pytest.approx([92 / WIDTH] * 80, rel=0.1)
    assert shot.gaps == ()
    (fixed,) = crops_in_clip(crossing, hog, WIDTH, driving_crop="fixed")
    assert fixed.path is None
    assert fixed.box.width > 1.5 * 92 / WIDTH


def test_a_head_that_tilts_far_is_found_and_turned_upright(head, hog, tmp_path):
    def draw(number: int) -> np.ndarray:
        return on(head, 200, 60, angle=55 * np.sin(np.pi * number / 75))

    (shot,) = crops_in_clip(clip_of(tmp_path / "tilt.mp4", draw, 76), hog, WIDTH)
    assert shot.path is not None
    assert shot.gaps == ()
    # 12 of the 55 degrees remain in the head.
    assert shot.path.at(1.5).angle == pytest.approx(43, abs=12)
    assert shot.path.at(0.0).angle == pytest.approx(0, abs=8)


def test_each_shot_has_its_square_from_its_first_frame_on(head, hog, tmp_path):
    def draw(number: int) -> np.ndarray:
        return on(head, 30, 40) if number < 33 else on(head, 330, 90, colour=(30, 60, 160))

    clip = clip_of(tmp_path / "cut.mp4", draw, 70)
    first, second = crops_in_clip(clip, hog, WIDTH)
    assert (first.start, second.start) == (Fraction(-1), Fraction(33, 25))
    assert first.path is second.path is None
    assert first.box.center[0] == pytest.approx(30 + HEAD[0], abs=12)
    assert second.box.center[0] == pytest.approx(330 + HEAD[0], abs=12)
    (whole,) = crops_in_clip(clip, hog, WIDTH, driving_crop="fixed", cuts=False)
    assert whole.box == crop_in_clip(clip, hog, WIDTH).box
    # Times count from the requested start.
    later = crops_in_clip(Clip(clip.path, start=Fraction(20, 25)), hog, WIDTH)
    assert [shot.start for shot in later] == [Fraction(-1), Fraction(13, 25)]


def test_a_shot_without_a_head_belongs_to_the_one_before(head, hog, tmp_path):
    def draw(number: int) -> np.ndarray:
        if number < 40:
            return on(head, 60, 40)
        return (
            np.full((360, 640, 3), (10, 120, 40), np.uint8) if number < 80 else on(head, 320, 60, colour=(200, 180, 90))
        )

    clip = clip_of(tmp_path / "gap.mp4", draw, 120)
    first, second = crops_in_clip(clip, hog, WIDTH)
    ((start, end),) = first.gaps
    assert start < Fraction(40, 25)
    assert end == second.start == Fraction(80, 25)
    assert second.gaps == ()
    late = Clip(clip.path, start=Fraction(2))
    (only,) = crops_in_clip(late, hog, WIDTH)
    ((start, end),) = only.gaps
    assert start == -1
    assert Fraction(30, 25) <= end <= Fraction(35, 25)
    with pytest.raises(InputError, match="no face found in empty"):
        crops_in_clip(clip_of(tmp_path / "empty.mp4", lambda _: np.full((360, 640, 3), 90, np.uint8), 20), hog, WIDTH)


def test_a_head_that_the_edge_cuts_off_is_absent_and_comes_back(head, thorough_hog, tmp_path):
    clip = clip_of(
        tmp_path / "lean.mp4", lambda number: on(head, 200 - 330 * max(0, np.sin(np.pi * number / 75)) ** 2, 60), 76
    )
    (shot,) = crops_in_clip(clip, thorough_hog, WIDTH)
    # The face, 92 wide, reaches the edge when its middle is 46 from it, after 0.93 s, and is whole from 2.07 s on.
    ((start, end),) = shot.gaps
    assert (float(start), float(end)) == pytest.approx((0.9, 2.1), abs=0.3)


def test_the_source_has_room_for_the_moves_to_come(hog):
    picture = skimage.data.astronaut()
    plain = source_crop(picture, hog, 0.42, [])
    assert plain.box.width == pytest.approx(92 / 0.42, rel=0.08)
    moved = source_crop(picture, hog, 0.42, [(0.0, 0.0), (0.7, 0.0), (0.7, 0.1)])
    # From the middle of the face to the right: the head (0.75 of a face), and its motion.
    assert moved.box.width == pytest.approx(2 * (0.75 + 0.7) * 92, rel=0.12)
    far = source_crop(picture, hog, 0.42, [(0.0, 0.0), (9.0, 9.0)])
    assert far.box.width == pytest.approx(92 / LOOSEST, rel=0.08)
    room = room_in(plain, 512)
    assert min(room.left, room.up, room.right, room.down) > 0
    assert room_in(moved, 512).right > room.right * plain.box.width / moved.box.width


def test_a_head_at_the_edge_of_its_picture_hardly_leaves_it(hog):
    """Beyond the edge is a reflection, with a second head."""
    tight = np.ascontiguousarray(skimage.data.astronaut()[60:220, 160:300])
    found = source_crop(tight, hog, 0.42, [])
    assert found.box.clipped(140, 160) != found.box
    room = room_in(found, 140)
    assert max(room.left, room.right) == pytest.approx(2 * 0.15 * found.subject.box.width / found.box.width, rel=0.5)


def test_moves_are_reported_in_faces_from_the_first_sighting(crossing, hog):
    fixed = crops_in_clip(crossing, hog, WIDTH, driving_crop="fixed")
    assert max(x for x, _ in excursions(fixed, 1.0)) == pytest.approx(5 * 75 / 92, rel=0.15)
    following = crops_in_clip(crossing, hog, WIDTH, driving_crop="follow")
    assert max(x for x, _ in excursions(following, 0.0)) < 0.25
