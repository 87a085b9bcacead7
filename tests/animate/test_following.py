"""The square that follows a subject: its position, and the travel that is added back."""

import math

import numpy as np
import pytest
import torch

from fommctl.animate.transfer import Moment, MotionTransfer, softly, travelled
from fommctl.detection.framing import Room
from fommctl.detection.tracking import FAR, STILL, SquarePath, Travel, smooth_path, travel
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.resampling import crop, upright
from fommctl.networks.transfer import Motion

RAMP = np.arange(40)


def straight(count: int = 26) -> tuple[list[float], list[TurnedSquare]]:
    """Return five moments per second of a square that moves to the right at 50 pixels per second."""
    times = [index / 5 for index in range(count)]
    return times, [TurnedSquare((100 + 50 * time, 80.0), 200.0) for time in times]


def test_an_even_walk_is_followed_exactly_to_both_ends():
    times, squares = straight()
    path = smooth_path(times, squares)
    for time in (0.0, 0.3, 2.5, 5.0):
        assert path.at(time).center == pytest.approx((100 + 50 * time, 80), abs=1e-6)
        assert path.at(time).side == pytest.approx(200)
    assert path.wanders
    assert path.smallest == pytest.approx(200)


def test_the_steps_of_a_detector_are_smoothed_and_a_stray_detection_is_dropped():
    times, squares = straight()
    # HOG measures in steps of a tenth of a face, here 12 pixels.
    stepped = [TurnedSquare((12 * round(square.center[0] / 12), 80.0), 200.0) for square in squares]
    stepped[12] = TurnedSquare((900.0, 500.0), 60.0)
    path = smooth_path(times, stepped)
    errors = [path.at(time).center[0] - (100 + 50 * time) for time in np.linspace(0, 5, 101)]
    assert np.abs(errors).max() < 6
    assert max(abs(path.at(time).side - 200) for time in times) < 1


def test_where_a_subject_stays_nothing_wanders():
    times, _ = straight()
    shaken = [TurnedSquare((100.0 + 10 * (number % 2), 80.0), 200.0 * 1.05 ** (number % 2)) for number in range(26)]
    assert not smooth_path(times, shaken).wanders
    grown = [TurnedSquare((100.0, 80.0), 200.0 * (1 + number / 40)) for number in range(26)]
    assert smooth_path(times, grown).wanders


def test_small_tilts_are_motion_and_large_ones_are_turned_upright():
    times, squares = straight()
    for tilt, left in ((10.0, 0.0), (-40.0, -28.0)):
        path = smooth_path(times, [TurnedSquare(square.center, 200.0, tilt) for square in squares])
        assert path.at(2.0).angle == pytest.approx(left)


def test_travel_by_hand():
    first = TurnedSquare((100.0, 100.0), 200.0)
    assert travel(first, first, 0.5) == STILL
    moved = travel(TurnedSquare((130.0, 90.0), 400.0, 30.0), first, 1.0)
    assert moved.shift == pytest.approx((0.3, -0.1))
    assert (moved.scale, moved.angle) == pytest.approx((2.0, math.radians(30)))
    part = travel(TurnedSquare((101.0, 100.0), 400.0, 30.0), first, 0.5)
    assert part.shift == pytest.approx((0.005, 0.0), rel=1e-3)
    assert (part.scale, part.angle) == pytest.approx((math.sqrt(2), math.radians(15)))
    # Seen from a reference rotated by 90 degrees, right is up.
    turned = travel(TurnedSquare((130.0, 100.0), 200.0, 90.0), TurnedSquare((100.0, 100.0), 200.0, 90.0), 1.0)
    assert turned.shift == pytest.approx((0.0, -0.3))


def test_a_long_way_is_not_put_back_in_full():
    first = TurnedSquare((0.0, 0.0), 100.0)
    assert travel(TurnedSquare((1e6, 0.0), 100.0), first, 0.25).shift == pytest.approx((FAR / 0.75, 0.0))
    assert travel(TurnedSquare((1e6, 0.0), 100.0), first, 0.0).shift == (0.0, 0.0)
    assert travel(TurnedSquare((1000.0, 0.0), 100.0), first, 1.0).shift == pytest.approx((20.0, 0.0))


def test_a_motion_in_a_square_that_moved_is_put_back_where_it_was():
    """Keypoints in a square that travelled, with all travel added back, equal those in the reference's square."""
    random = np.random.default_rng(3)
    points = np.array([150, 120]) + random.uniform(-40, 40, (5, 2))
    maps = random.normal(size=(5, 2, 2))
    first, now = TurnedSquare((140.0, 110.0), 120.0, 20.0), TurnedSquare((160.0, 130.0), 90.0, -25.0)

    def seen(square: TurnedSquare) -> Motion:
        angle = math.radians(square.angle)
        back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) * 2 / square.side
        keypoints = (points - square.center) @ back.T
        return Motion(torch.tensor(keypoints[None]), torch.tensor((back @ maps)[None]))

    found = travelled(seen(now), [travel(now, first, 1.0)])
    torch.testing.assert_close(found.keypoints, seen(first).keypoints)
    torch.testing.assert_close(found.jacobians, seen(first).jacobians)
    assert travelled(seen(now), [STILL]) is not None
    torch.testing.assert_close(travelled(seen(now), [STILL]).keypoints, seen(now).keypoints, rtol=0, atol=0)


def test_each_shot_has_its_reference_and_forgets_the_one_before():
    def motion(*values: float) -> Motion:
        return Motion(torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(-1, 1, 2))

    source = motion(0.5)
    both = MotionTransfer(source, [motion(0.0), motion(10.0)], mode="relative", adapt_scale=True, smooth=False)
    moments = [Moment(0.0), Moment(0.1), Moment(0.2, False, 1), Moment(0.3, True, 1), Moment(0.4, False, 1)]
    moved = both(motion(0.1, 0.2, 7.0, 10.25, 8.0), moments).keypoints[:, 0, 0].tolist()
    # The absent frames: the reference of the shot before anything was seen, then its last pose.
    assert moved == pytest.approx([0.6, 0.7, 0.5, 0.75, 0.75])


def test_a_held_pose_passes_over_into_the_next():
    def motion(*values: float) -> Motion:
        return Motion(torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(-1, 1, 2))

    gone = [Moment(0.0), Moment(0.1, False), Moment(0.2, False)]
    back = [Moment(0.4), Moment(0.5), Moment(0.6), Moment(0.7)]
    for ease, expected in ((True, [1, 1, 1, 5, 7.75, 9, 9]), (False, [1, 1, 1, 9, 9, 9, 9])):
        held = MotionTransfer(motion(0), [motion(0)], mode="absolute", adapt_scale=False, smooth=False, ease=ease)
        found = [*held(motion(1, 5, 5), gone).keypoints, *held(motion(9, 9, 9, 9), back).keypoints]
        # Half of the transition after 0.2 of 0.4 seconds, 27/32 of it after 0.3.
        assert [float(each[0, 0]) for each in found] == pytest.approx(expected)


def test_a_subject_stays_in_its_room_and_what_is_lost_is_remembered():
    source = Motion(torch.zeros(1, 2, 2))
    room = Room(left=0.2, up=0.0, right=0.4, down=1.0)
    still = MotionTransfer(source, [source], mode="relative", adapt_scale=False, smooth=False, room=room)
    shifts = torch.tensor([[0.1, 0.1], [5.0, 0.0], [-5.0, -1.0]])
    moved = still(Motion(shifts[:, None].expand(-1, 2, -1)), [Moment(0.0), Moment(0.1), Moment(0.2)]).keypoints
    torch.testing.assert_close(moved[0, 0], shifts[0])
    assert moved[1, 0].tolist() == pytest.approx([0.4, 0.0], abs=1e-4)
    assert moved[2, 0].tolist() == pytest.approx([-0.2, 0.0], abs=1e-4)
    assert still.limited == [0.1, 0.2]
    # Added-back travel is cut as well, but that is no loss of driving motion.
    put_back = Travel((5.0, 0.0), 1.0, 0.0)
    again = still(Motion(torch.zeros(1, 2, 2)), [Moment(0.3, travel=put_back)]).keypoints
    assert again[0, 0].tolist() == pytest.approx([0.4, 0.0], abs=1e-4)
    assert still.limited == [0.1, 0.2]


def test_the_limit_is_soft_and_rises_everywhere():
    ways = torch.linspace(0, 3, 301)[:, None].expand(-1, 2)
    kept = softly(ways, torch.tensor([0.5, 1.0]))
    assert bool((kept.diff(dim=0) >= 0).all())
    assert bool((kept < torch.tensor([0.5001, 1.0001])).all())
    torch.testing.assert_close(kept[:30], ways[:30])


def test_a_turned_square_is_taken_upright():
    rows, columns = np.mgrid[0:120, 0:160]
    picture = np.stack([columns, rows, np.full_like(rows, 7)], -1).astype(np.uint8)
    plain = upright(picture, TurnedSquare((80.0, 60.0), 40.0), (40, 40))
    np.testing.assert_array_equal(plain, picture[40:80, 60:100])
    right = upright(picture, TurnedSquare((80.0, 60.0), 40.0, 90.0), (40, 40))
    # Rotated clockwise by 90 degrees: its top is on the right in the picture.
    np.testing.assert_allclose(right.astype(int), np.rot90(picture[40:80, 60:100], 1).astype(int), atol=1)
    half = upright(picture, TurnedSquare((80.0, 60.0), 60.0, 45.0), (30, 30))
    assert half[15, 15, :2].astype(int) == pytest.approx([81, 61], abs=2)
    # One step to the right in it, two pixels of the picture, goes down and to the right.
    step = half[15, 20, :2].astype(int) - half[15, 10, :2].astype(int)
    assert step == pytest.approx([20 * math.cos(math.pi / 4)] * 2, abs=2)


def test_a_mirrored_crop_reflects_and_a_plain_one_repeats():
    picture = RAMP[None].repeat(3, 0).astype(np.uint8)
    box = Box(-3, 0, 43, 3)
    assert crop(picture, box)[0].tolist() == [0, 0, 0, *range(40), 39, 39, 39]
    assert crop(picture, box, mirrored=True)[0].tolist() == [3, 2, 1, *range(40), 38, 37, 36]
    wide = crop(picture, Box(-100, 0, 200, 3), mirrored=True)[0].astype(int)
    assert np.abs(np.diff(wide)).max() == 1
    assert crop(np.full((1, 1), 5, np.uint8), Box(-2, -2, 3, 3), mirrored=True).tolist() == [[5] * 5] * 5


def test_a_path_stands_still_outside_of_its_times():
    path = SquarePath((1.0, 2.0), (TurnedSquare((0.0, 0.0), 100.0), TurnedSquare((10.0, 20.0), 400.0)))
    assert path.at(0.0) == path.at(1.0)
    assert path.at(9.0).center == pytest.approx((10, 20))
    assert path.at(1.5).side == pytest.approx(200)
