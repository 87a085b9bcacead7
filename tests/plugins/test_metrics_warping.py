"""Warping error: stills, known motion and disocclusion."""

import numpy as np
import pytest
from scored import noisy, portrait, score

from fommctl_metrics.warping import visible, warped

LEVEL = 20


@pytest.fixture
def still() -> np.ndarray:
    return np.repeat(portrait(1, 64).clip(0, 255 - LEVEL), 4, axis=0)


def test_a_flickering_still_by_hand(still: np.ndarray) -> None:
    prediction = still.copy()
    prediction[2] += LEVEL
    scores = score("warp-error", prediction, still, cuts=[1, 3])
    step = (LEVEL / 255) ** 2
    assert np.isnan(scores.frames[0])
    assert scores.frames[1:] == pytest.approx([0, step, step])
    assert scores.value == pytest.approx(2 * step / 3)
    assert (scores.scored, scores.total) == (3, 4)


def test_a_true_still_has_no_error_to_compare_with(still: np.ndarray) -> None:
    scores = score("warp-error.relative", noisy(still), still)
    assert (scores.value, scores.scored, scores.total) == (None, 0, 4)


def test_motion_is_no_flicker() -> None:
    truth = portrait(4, 128)
    steady = score("warp-error", truth, truth).value
    standing = np.mean(np.diff(truth / 255, axis=0) ** 2)
    assert steady < standing / 50
    assert score("warp-error.relative", truth, truth).value == 1.0


def test_independent_noise_costs_twice_its_variance() -> None:
    truth = np.full((4, 96, 96, 3), 128, np.uint8)
    prediction = noisy(truth, 10)
    # Nothing moves in the truth, so nothing is resampled; rounding adds 1/12.
    assert score("warp-error", prediction, truth).value == pytest.approx(2 * (100 + 1 / 12) / 255**2, rel=0.01)


def test_the_relative_error_is_the_ratio_of_the_sums() -> None:
    truth = portrait(4, 96)
    prediction = noisy(truth)
    ratio = score("warp-error", prediction, truth).value / score("warp-error", truth, truth).value
    scores = score("warp-error.relative", prediction, truth, cuts=[2])
    assert scores.value == pytest.approx(ratio)
    assert (scores.scored, scores.total, len(scores.frames)) == (3, 4, 0)


def test_frames_are_moved_along_the_flow() -> None:
    picture = portrait(1, 40)[0]
    flow = np.zeros((40, 40, 2), np.float32)
    flow[:] = 3, -2
    assert (warped(picture, flow)[2:, :-3] == picture[:-2, 3:]).all()
    flow[:] = 0.5, 0
    assert (warped(picture, flow)[:, :-1] == picture.astype(float)[:, :-1] / 2 + picture[:, 1:] / 2).all()


def test_what_leads_astray_or_out_of_the_frame_is_not_visible() -> None:
    backward = np.zeros((4, 6, 2), np.float32)
    forward = np.zeros((4, 6, 2), np.float32)
    backward[0, 0] = -1, 0
    forward[0, 0] = 1, 0
    backward[1, 2] = 2, 1
    forward[1, 2] = -2, -1
    # |b + f|^2 = 0.81 is allowed for |b|^2 + |f|^2 > 31, but not below.
    backward[2, 3], forward[2, 3] = (0.9, 0), (0, 0)
    backward[3, 3], forward[3, 3] = (0, 0), (0.7, 0)
    expected = np.ones((4, 6), bool)
    expected[0, 0] = expected[2, 3] = False
    assert (visible(backward, forward) == expected).all()


@pytest.mark.parametrize(("frames", "size"), [(1, 64), (3, 15)])
def test_one_frame_and_small_ones_have_no_score(frames: int, size: int) -> None:
    truth = portrait(frames, size)
    for name in ("warp-error", "warp-error.relative"):
        scores = score(name, truth, truth)
        assert (scores.value, scores.scored, scores.total) == (None, 0, frames)
