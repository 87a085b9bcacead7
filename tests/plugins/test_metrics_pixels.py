"""L1 and PSNR: cases computed by hand, scikit-image's values, and nearly empty clips."""

import math

import numpy as np
import pytest
import skimage.metrics
from scored import noisy, portrait, score

import fommctl_metrics
from fommctl.api import InputError
from fommctl.api.testing import check_metric

OURS = {spec.name: spec for spec in fommctl_metrics.fommctl_metrics()}
TWO_FRAMES = np.zeros((2, 4, 5, 3), np.uint8)
"""Black frames, of which the second gets one wrong value."""


def one_wrong_value(level: int) -> np.ndarray:
    frames = TWO_FRAMES.copy()
    frames[1, 2, 3, 0] = level
    return frames


@pytest.mark.parametrize("name", ["ms-ssim", "niqe"])
def test_the_contract_holds_where_frames_are_large_enough(name: str) -> None:
    """test_contracts.py checks all metrics with frames of 64 pixels."""
    check_metric(OURS[name], list(portrait(4, 196)))


@pytest.mark.parametrize("name", ["l1.paper", "l1.strict"])
def test_l1_by_hand(name: str) -> None:
    scores = score(name, one_wrong_value(51), TWO_FRAMES)
    # 51 / 255 = 0.2 in one of 4 * 5 * 3 values.
    assert list(scores.frames) == [0.0, pytest.approx(0.2 / 60)]
    assert scores.value == pytest.approx(0.1 / 60)
    assert (scores.scored, scores.total) == (2, 2)


def test_l1_of_the_paper_is_that_before_rounding() -> None:
    exact = np.full((2, 4, 5, 3), 0.25, np.float32)
    rounded = np.full((2, 4, 5, 3), 64, np.uint8)
    truth = np.full((2, 4, 5, 3), 51, np.uint8)
    assert score("l1.paper", rounded, truth, exact=exact).value == pytest.approx(0.05)
    assert score("l1.strict", rounded, truth, exact=exact).value == pytest.approx(13 / 255)
    assert score("l1.paper", rounded, truth).value == pytest.approx(13 / 255)


def test_l1_weighs_frames_in_the_paper_and_clips_in_the_strict_variant() -> None:
    assert OURS["l1.paper"].weighting == "frames"
    assert OURS["l1.strict"].weighting == "clips"


def test_l1_over_that_of_repeating_the_first_frame() -> None:
    truth = np.zeros((3, 4, 5, 3), np.uint8)
    truth[1:] += np.array([10, 30], np.uint8)[:, None, None, None]
    prediction = np.zeros_like(truth)
    prediction[:] += np.array([2, 5, 13], np.uint8)[:, None, None, None]
    # Errors of 2, 5 and 17; of repeating, 0, 10 and 30.
    for cuts in ([], [1], [1, 2]):
        scores = score("l1.relative", prediction, truth, cuts=cuts)
        assert scores.value == pytest.approx(24 / 40)
        assert (scores.scored, scores.total, len(scores.frames)) == (3, 3, 0)
    still = score("l1.relative", prediction[:2], truth[[0, 0]])
    assert still.value is None
    combine = OURS["l1.relative"].combine
    # Ratio of the means over clips, not over their frames: (24 / 3 + 7 / 2) / (40 / 3 + 0).
    assert combine([scores, still]) == pytest.approx((8 + 3.5) / (40 / 3))
    assert combine([still]) is None
    assert combine([]) is None
    assert score("l1.relative", truth[[0, 0, 0]], truth).value == 1


def test_psnr_by_hand() -> None:
    scores = score("psnr", one_wrong_value(51), TWO_FRAMES)
    # Equal frames count as 100 dB; 255^2 / (51^2 / 60) = 1500.
    assert list(scores.frames) == [100.0, pytest.approx(10 * math.log10(1500))]
    assert scores.value == pytest.approx((100 + 10 * math.log10(1500)) / 2)


def test_psnr_is_that_of_scikit_image() -> None:
    truth = portrait(3, 64)
    prediction = noisy(truth)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(*pair, data_range=255) for pair in zip(truth, prediction, strict=True)
    ]
    assert score("psnr", prediction, truth, cuts=[2]).frames == pytest.approx(expected, rel=1e-12)


def test_psnr_of_the_worst_frames_is_zero() -> None:
    white = np.full_like(TWO_FRAMES, 255)
    assert score("psnr", white, TWO_FRAMES).value == 0
    assert score("psnr", TWO_FRAMES, white).value == 0
    assert score("l1.strict", white, TWO_FRAMES).value == 1


@pytest.mark.parametrize(
    ("name", "best"),
    [("l1.paper", 0), ("l1.strict", 0), ("psnr", 100), ("psnr.luma", 100), ("ssim", 1), ("ms-ssim", 1), ("strred", 0)],
)
def test_equal_videos_score_best_and_so_do_black_ones(name: str, best: float) -> None:
    truth = portrait(4, 200)
    black = np.zeros_like(truth)
    assert score(name, truth, truth).value == pytest.approx(best, abs=1e-6)
    assert score(name, black, black).value == pytest.approx(best, abs=1e-6)
    against_black = score(name, black, truth).value
    assert against_black is not None
    assert (against_black > best) == OURS[name].lower_is_better


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("l1.paper", 1), ("psnr", 1), ("psnr.luma", 1), ("ssim", 11), ("ms-ssim", 176), ("niqe", 194)],
)
def test_frames_that_are_too_small_have_no_score(name: str, smallest: int) -> None:
    truth = portrait(2, 200)
    prediction = noisy(truth)
    enough = (slice(None), slice(smallest), slice(smallest + 3))
    assert score(name, prediction[enough], truth[enough]).scored == 2
    if smallest > 1:
        short = (slice(None), slice(smallest - 1), slice(smallest + 3))
        scores = score(name, prediction[short], truth[short])
        assert (scores.value, scores.scored, scores.total) == (None, 0, 2)
        assert np.isnan(scores.frames).all()


def test_a_metric_without_its_truth_says_so() -> None:
    with pytest.raises(InputError, match="no true video"):
        score("psnr", TWO_FRAMES, None)
