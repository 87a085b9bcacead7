"""Smoothing damps trembling and lets motion through."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.networks.transfer import COMMON, OWN, Follower, Motion, MotionSmoother

RATE = 25.0
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])


def times(count, rate=RATE):
    return [index / rate for index in range(count)]


def trembling(count, keypoints=15, size=0.005, seed=0):
    """Return keypoints (count, K, 2) that tremble around fixed positions."""
    random = torch.Generator().manual_seed(seed)
    places = torch.rand(1, keypoints, 2, generator=random) - 0.5
    return places + size * torch.randn(count, keypoints, 2, generator=random)


def shaking(points):
    return (points[2:] - 2 * points[1:-1] + points[:-2]).norm(dim=-1).mean()


def smoothed(points, rate=RATE, **parts):
    return MotionSmoother()(Motion(points, **parts), times(len(points), rate))


def test_the_weight_is_that_of_a_low_pass_filter_whose_cutoff_rises():
    follower = Follower(cutoff=2.0, distance=0.5)
    for squares, cutoff in ((0.0, 2.0), (1.0, 4.0), (9.0, 20.0)):
        step = 2 * math.pi * cutoff / RATE
        assert follower.weight(torch.tensor(squares), 1 / RATE).item() == pytest.approx(step / (1 + step), rel=1e-6)


def test_what_rests_is_kept():
    points = trembling(1).expand(6, -1, -1)
    torch.testing.assert_close(smoothed(points).keypoints, points)


def test_what_trembles_is_steadied():
    points = trembling(200)
    assert shaking(smoothed(points).keypoints) < 0.4 * shaking(points)


def test_a_fast_keypoint_is_not_late_and_leaves_the_others_steady():
    """A mouth suddenly opens by a tenth of the frame, among keypoints that tremble."""
    points = trembling(80)
    points[40:, 0, 1] += 0.2
    result = smoothed(points).keypoints
    assert (result[40, 0, 1] - points[40, 0, 1]).abs() < 0.1 * 0.2
    others = slice(1, None)
    assert shaking(result[:, others]) < 0.45 * shaking(points[:, others])


def test_a_head_that_moves_takes_all_keypoints_along_and_they_do_not_tremble():
    points = trembling(100)
    travel = torch.linspace(0, 1.5, 100)[:, None, None]
    result = smoothed(points + travel).keypoints - travel
    assert (result - points)[10:].mean().abs() < 0.6 * COMMON.distance
    assert shaking(result) < 0.5 * shaking(points)


@given(st.floats(0, 2, allow_nan=False), st.floats(12, 60))
@settings(max_examples=80, deadline=None)
def test_no_keypoint_is_far_off(way, rate):
    """However far a keypoint moves in a frame, it lags by no more than the filter's distance."""
    points = torch.zeros(2, 200, 2)
    points[1, 0, 0] = way
    left = (smoothed(points, rate).keypoints - points)[1, 0].norm()
    assert left <= OWN.distance + COMMON.distance * 0.01
    if way > 0.5:
        assert left < 0.01 * rate / RATE * 2


def test_a_jacobian_goes_with_its_keypoint():
    """All four values move by the same share."""
    points, jacobians = torch.zeros(2, 50, 2), torch.eye(2).expand(2, 50, 2, 2).clone()
    points[1, 0] = 0.02
    jacobians[1, 0] += 0.01 * TURN
    result = smoothed(points, jacobians=jacobians)
    common = points[1].mean(0)
    own_way = (result.keypoints[1, 0] - common) / (points[1, 0] - common)
    shares = (result.jacobians[1, 0] - torch.eye(2))[TURN != 0] / (0.01 * TURN)[TURN != 0]
    assert 0.3 < shares[0] < 0.95
    torch.testing.assert_close(shares, shares[:1].expand(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(shares.mean(), own_way.mean(), atol=0.02, rtol=0)
    assert torch.equal(result.jacobians[1, 1:], jacobians[1, 1:])


def test_a_turn_in_place_is_followed():
    points, jacobians = torch.zeros(2, 4, 2), torch.eye(2).expand(2, 4, 2, 2).clone()
    jacobians[1] = TURN
    torch.testing.assert_close(smoothed(points, jacobians=jacobians).jacobians[1], jacobians[1], atol=0.02, rtol=0)


def test_shapes_of_heatmaps_and_codes_are_steadied():
    random = torch.Generator().manual_seed(3)
    covariances = torch.eye(2) * 0.01 + 0.001 * torch.randn(100, 15, 2, 2, generator=random)
    result = smoothed(trembling(100), covariances=covariances)
    assert result.covariances.std(0).mean() < 0.8 * covariances.std(0).mean()
    codes = 1 + 0.01 * torch.randn(100, 8, generator=random)
    steady = smoothed(torch.zeros(100, 0, 2), codes=codes)
    assert steady.keypoints.shape == (100, 0, 2)
    assert shaking(steady.codes[..., None]) < 0.5 * shaking(codes[..., None])
    jump = torch.cat((torch.ones(1, 8), -torch.ones(1, 8)))
    torch.testing.assert_close(smoothed(torch.zeros(2, 0, 2), codes=jump).codes, jump, atol=0.05, rtol=0)


def test_rates_that_vary_do_not_shake_more():
    points = trembling(60)
    uneven = [index / RATE + 0.008 * (index % 3) for index in range(60)]
    result = MotionSmoother()(Motion(points), uneven).keypoints
    assert shaking(result) < 0.5 * shaking(points)
    again = MotionSmoother()(Motion(points[:2]), [0.0, 0.0]).keypoints  # two frames at one time
    torch.testing.assert_close(again[1], again[0], atol=1e-4, rtol=0)


def test_it_does_not_depend_on_how_frames_are_batched():
    walk = Motion(
        torch.randn(12, 3, 2, generator=torch.Generator().manual_seed(1)).cumsum(0), torch.eye(2).expand(12, 3, 2, 2)
    )
    moments = times(12, 30)
    whole, parts, smoother = MotionSmoother()(walk, moments), [], MotionSmoother()
    for start, end in ((0, 5), (5, 6), (6, 12)):
        parts.append(smoother(walk[start:end], moments[start:end]).keypoints)
    assert torch.equal(torch.cat(parts), whole.keypoints)


def test_it_continues_in_another_process():
    points = trembling(20)
    smoother = MotionSmoother()
    smoother(Motion(points[:10]), times(10))
    other = pickle.loads(pickle.dumps(smoother.to("cpu")))
    after = Motion(points[10:])
    expected = smoother(after, times(20)[10:]).keypoints
    assert torch.equal(other(after, times(20)[10:]).keypoints, expected)
    torch.testing.assert_close(MotionSmoother().to("cpu")(Motion(points[:1]), [0.0]).keypoints, points[:1])
