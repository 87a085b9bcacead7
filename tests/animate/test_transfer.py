"""Transfer, hulls, smoothing and their order, for cases computed by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.animate.transfer import Moment, MotionTransfer
from fommctl.api.schema import Opening
from fommctl.errors import UsageError
from fommctl.networks.transfer import Motion, adapted_covariances, hull_area, inverse, movement_scale, relative

SQUARE = torch.tensor([[[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [0.1, 0.2]]])
floats = st.floats(-1, 1, allow_nan=False, width=32)


def motion(keypoints, jacobian=None):
    points = torch.as_tensor(keypoints, dtype=torch.float32)
    points = points if points.dim() == 3 else points[None]
    if jacobian is None:
        return Motion(points)
    return Motion(points, torch.as_tensor(jacobian, dtype=torch.float32).expand(*points.shape[:2], 2, 2))


def test_hull_area_of_a_square_with_a_point_inside_and_of_degenerate_sets():
    assert hull_area(SQUARE[0]) == pytest.approx(1.0)
    assert hull_area(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])) == 0
    assert hull_area(torch.tensor([[0.3, 0.3]] * 5)) == 0
    assert hull_area(torch.tensor([[0.0, 0.0], [1.0, 0.0]])) == 0


@given(st.lists(st.tuples(floats, floats), min_size=3, max_size=12), st.floats(0.25, 4), floats, floats)
@settings(max_examples=60, deadline=None)
def test_hull_area_does_not_change_by_shifts_and_grows_with_the_square_of_scale(points, scale, x, y):
    cloud = torch.tensor(points, dtype=torch.float64)
    moved = cloud * scale + torch.tensor([x, y], dtype=torch.float64)
    assert hull_area(moved) == pytest.approx(hull_area(cloud) * scale**2, rel=1e-4, abs=1e-9)


def test_scale_is_the_root_of_the_ratio_of_areas_and_one_without_an_area():
    assert movement_scale(motion(SQUARE), motion(SQUARE / 2)) == pytest.approx(2.0)
    flat = motion(torch.zeros(1, 5, 2))
    assert movement_scale(flat, motion(SQUARE)) == 1.0
    assert movement_scale(motion(SQUARE), flat) == 1.0


def test_relative_motion_by_hand():
    turn = [[0.0, -1.0], [1.0, 0.0]]
    driving, reference = motion([[0.3, 0.1]], turn), motion([[0.1, 0.0]], [[2.0, 0.0], [0.0, 2.0]])
    source = motion([[-0.5, 0.5]], [[1.0, 0.5], [0.0, 1.0]])
    moved = relative(driving, reference, source, scale=2.0)
    torch.testing.assert_close(moved.keypoints, torch.tensor([[[-0.1, 0.7]]]))
    # turn / 2 @ [[1, .5], [0, 1]] = [[0, -.5], [.5, .25]]
    torch.testing.assert_close(moved.jacobians, torch.tensor([[[[0.0, -0.5], [0.5, 0.25]]]]))


def test_relative_motion_of_the_reference_is_the_source():
    reference, source = motion(SQUARE, [[1.5, 0.2], [0.1, 0.8]]), motion(SQUARE / 3, [[0.7, 0.0], [0.3, 1.2]])
    moved = relative(reference, reference, source, scale=1.7)
    torch.testing.assert_close(moved.keypoints, source.keypoints)
    torch.testing.assert_close(moved.jacobians, source.jacobians)


@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4))
@settings(max_examples=50, deadline=None)
def test_the_closed_inverse_is_the_inverse(values):
    matrix = torch.tensor(values, dtype=torch.float64).view(2, 2) + 4 * torch.eye(2, dtype=torch.float64)
    if abs(torch.linalg.det(matrix)) > 0.1:
        torch.testing.assert_close(inverse(matrix[None])[0] @ matrix, torch.eye(2, dtype=torch.float64))


def test_covariances_change_as_the_driving_ones_have():
    """By hand: the driving one is twice as wide as in the reference, so the source becomes twice as wide; variances
    stay above 1e-6."""
    driving = torch.diag(torch.tensor([0.08, 0.02])).expand(1, 1, 2, 2)
    reference = torch.diag(torch.tensor([0.04, 0.02])).expand(1, 1, 2, 2)
    source = torch.tensor([[0.03, 0.004], [0.004, 0.01]]).expand(1, 1, 2, 2)
    # diag(2, 1) times source is not symmetric; the mean of it and its transpose is.
    wanted = torch.tensor([[0.06, 0.006], [0.006, 0.01]])
    torch.testing.assert_close(adapted_covariances(driving, reference, source)[0, 0], wanted)
    torch.testing.assert_close(adapted_covariances(reference, reference, source), source, atol=1e-7, rtol=0)
    flat = torch.diag(torch.tensor([0.05, -0.01])).expand(3, 1, 2, 2)
    found = adapted_covariances(flat, torch.eye(2).expand(1, 1, 2, 2), torch.eye(2).expand(1, 1, 2, 2))
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.05, 1e-6])).expand(3, 1, 2, 2))


def test_openings_move_further_and_never_past_each_other():
    """By hand: lips part by 0.1, eyelids close by 0.3, twice as far; the chin moves with the lower lip."""
    still = torch.tensor([[0.0, 0.2], [0.0, 0.3], [0.0, 0.6], [-0.3, 0.0], [-0.3, -0.4], [0.5, 0.5]])
    driving = still.clone()
    driving[[1, 2], 1] += 0.1
    driving[4, 1] += 0.3
    moves = [
        MotionTransfer(motion(still), [motion(still)], mode="relative", adapt_scale=False, smooth=False,
                       openings=[Opening(keypoints=each, opens=gain, closes=gain) for each in ((0, 1, 2), (3, 4))],
                       )(motion(driving), [Moment(0)]).keypoints[0]
        for gain in (1.0, 2.0, 0.0)
    ]  # fmt: skip
    torch.testing.assert_close(moves[0], driving)
    wanted = driving.clone()
    wanted[[1, 2], 1] += 0.1
    wanted[4, 1] = 0.0  # 0.2 further, from a distance of 0.1 to the lower lid: they meet
    torch.testing.assert_close(moves[1], wanted)
    wanted = driving.clone()
    wanted[[1, 2], 1] -= 0.1
    wanted[4, 1] -= 0.3
    torch.testing.assert_close(moves[2], wanted)
    weak = MotionTransfer(
        motion(still), [motion(still)], mode="relative", adapt_scale=False, smooth=False,
        openings=[Opening(keypoints=(0, 1, 2), closes=4), Opening(keypoints=(3, 4), opens=4, closes=1.25)],
    )(motion(driving), [Moment(0)]).keypoints[0]  # fmt: skip
    wanted = driving.clone()
    wanted[4, 1] += 0.25 * 0.3
    torch.testing.assert_close(weak, wanted)
    with pytest.raises(UsageError, match="names keypoint 6, the model has 6"):
        MotionTransfer(
            motion(still), [], mode="relative", adapt_scale=False, smooth=False, openings=[Opening(keypoints=(0, 6))]
        )


def test_small_openings_are_made_larger_and_wide_ones_are_not():
    """By hand: lips that are `source` apart open by `much`, three times as far where nothing is open yet."""

    def opened(source: float, much: float, expression: float = 1) -> float:
        still = torch.tensor([[0.0, 0.2], [0.0, 0.2 + source], [0.5, 0.5]])
        driving = still.clone()
        driving[1, 1] += much
        transfer = MotionTransfer(
            motion(still), [motion(still)], mode="relative", adapt_scale=False, smooth=False,
            openings=[Opening(keypoints=(0, 1), opens=3, widest=0.2)], expression=expression,
        )  # fmt: skip
        moved = transfer(motion(driving), [Moment(0)]).keypoints[0]
        return float(moved[1, 1] - moved[0, 1]) - source

    assert opened(0, 0.02) == pytest.approx(0.02 * 2.8)  # 1 + 2 * (1 - 0.02 / 0.2)
    assert opened(0, 0.1) == pytest.approx(0.1 * 2)
    assert opened(0.05, 0.02) == pytest.approx(0.02 * 1.8)  # 1 + 2 * (1 - (0.05 + 0.07) / 0.2)
    assert opened(0.05, 0.1) == pytest.approx(0.1)
    assert opened(0, 0.3) == pytest.approx(0.3)
    assert opened(0.1, -0.04) == pytest.approx(-0.04)  # closes as before
    assert opened(0, 0.1, 2) == pytest.approx(2 * 0.1 * 2)
    assert opened(0, 0.3, 0) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="greater than 0"):
        Opening(keypoints=(0, 1), widest=0)


def test_a_mouth_that_begins_open_opens_the_closed_one_of_the_source():
    """By hand: the driver's lips are `first` apart, then `then`; closed lips are at most 0.02 apart."""

    def lips(apart: float) -> torch.Tensor:
        return torch.tensor([[0.0, 0.2], [0.0, 0.2 + apart], [0.0, 0.6 + apart], [0.5, 0.5]])

    def lower_lip(source: float, first: float, then: float, **gains: float) -> float:
        opening = Opening(keypoints=(0, 1, 2), rest=(0.02, 0.25), **gains)
        transfer = MotionTransfer(
            motion(lips(source)), [motion(lips(first))], mode="relative", adapt_scale=False, smooth=False,
            openings=[opening],
        )  # fmt: skip
        frames = torch.stack([lips(each) for each in (first, first + 0.1, then)])
        begun, _, moved = transfer(motion(frames), [Moment(0), Moment(1), Moment(2)]).keypoints
        torch.testing.assert_close(begun, lips(source))  # a shot begins with the source as it is
        assert float(moved[2, 1] - moved[1, 1]) == pytest.approx(0.4)  # the chin moves with the lip
        torch.testing.assert_close(moved[[0, 3]], lips(source)[[0, 3]])
        return float(moved[1, 1] - moved[0, 1])

    assert lower_lip(0.01, 0.2, 0.2) == pytest.approx(0.01 + 0.2 - 0.02)
    assert lower_lip(0.01, 0.2, 0.1) == pytest.approx(0.01 + 0.1 - 0.02)
    assert lower_lip(0.01, 0.2, 0.0) == pytest.approx(0.0, abs=1e-6)  # never past each other
    assert lower_lip(0.01, 0.3, 0.3) == pytest.approx(0.01 + 0.25 - 0.02)  # the reference counts as 0.25
    assert lower_lip(0.01, 0.3, 0.2) == pytest.approx(0.01 + 0.25 - 0.02 - 0.1)
    assert lower_lip(0.05, 0.2, 0.1) == pytest.approx(0.1)  # further open than at rest: as far as the driver's
    assert lower_lip(0.4, 0.2, 0.1) == pytest.approx(0.4 + 0.1 - 0.2)  # further than the driver's: relative
    assert lower_lip(0.01, 0.015, 0.1) == pytest.approx(0.01 + 0.1 - 0.015)  # a driver at rest: relative
    assert lower_lip(0.01, 0.2, 0.1, opens=2) == pytest.approx(0.01 + 2 * (0.1 - 0.02))
    assert lower_lip(0.01, 0.2, 0.1, opens=0, closes=0) == pytest.approx(0.01)


def test_missing_frames_hold_the_last_pose_across_batches():
    source = reference = motion(torch.zeros(1, 1, 2))
    walk = motion(torch.arange(1.0, 7.0).view(6, 1, 1).expand(6, 1, 2))
    director = MotionTransfer(source, [reference], mode="absolute", adapt_scale=True, smooth=False)
    first = director(walk[:3], [Moment(0, False), Moment(1), Moment(2, False)])
    second = director(walk[3:], [Moment(3, False), Moment(4), Moment(5)])
    shown = torch.cat((first.keypoints, second.keypoints))[:, 0, 0].tolist()
    assert shown == [0.0, 2.0, 2.0, 2.0, 5.0, 6.0]  # before the first pose: the reference


def test_scale_is_adapted_for_relative_motion_only():
    source, reference = motion(SQUARE), motion(SQUARE / 2)
    for mode, adapt, scale in (("relative", True, 2.0), ("relative", False, 1.0), ("absolute", True, 1.0)):
        still = MotionTransfer(source, [reference], mode=mode, adapt_scale=adapt, smooth=False)
        moved = (
            still(motion(SQUARE / 2 + 0.1), [Moment(0)]).keypoints
            - (source if mode == "relative" else still.source).keypoints
        )
        expected = scale * 0.1 if mode == "relative" else (SQUARE / 2 + 0.1 - SQUARE)
        torch.testing.assert_close(moved, torch.zeros_like(moved) + expected)
