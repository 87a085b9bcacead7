"""scikit-video's measures of brightness: Y = 0.2989 R + 0.5870 G + 0.1140 B."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScores, FrameChunk, MetricClip
from fommctl_metrics.pixels import PSNR_MAX, FrameMetric, Pixels, Values, truth_of
from fommctl_metrics.scikit_video import measure, utilities

SMALLEST_SSIM = 11
"""Pixels of a side: the window of SSIM."""
SMALLEST_MS_SSIM = 176
"""The smallest side that scikit-video accepts: eleven pixels after four halvings."""
SMALLEST_NIQE = 194
"""The smallest side that scikit-video accepts: two patches of 96 pixels, and some more."""
SMALLEST_STRRED = 64
"""The band is an eighth of the frame; below that its blocks of 3 pixels are too few for their covariance."""

THREADS = 2
Measure = Callable[..., NDArray[np.floating]]
Scores = TypeVar("Scores")


def psnr() -> FrameMetric:
    """Return PSNR of brightness in dB, at most PSNR_MAX, by skvideo.measure.psnr."""
    return _frame_metric(measure("psnr").psnr, 1)


def ssim() -> FrameMetric:
    """Return structural similarity (Wang et al. 2004) by skvideo.measure.ssim.

    Gaussian window of 11 pixels, sigma 1.5; pixels whose window leaves the frame do not count; larger frames are first
    reduced by round(smaller side / 256).
    """
    return _frame_metric(measure("ssim").ssim, SMALLEST_SSIM)


def ms_ssim() -> FrameMetric:
    """Return multi-scale structural similarity by skvideo.measure.msssim.

    Wang et al. 2003, equation 7, with the published weights, but for the last scale: there, scikit-video leaves out the
    exponent of SSIM (0.1333). A frame that has a scale with negative contrast similarity has no score.
    """
    return _frame_metric(measure("msssim").msssim, SMALLEST_MS_SSIM)


def niqe() -> FrameMetric:
    """Return distance from the statistics of natural pictures (Mittal et al. 2013) by skvideo.measure.niqe, prediction
    alone.

    A frame of one brightness has no such statistics, and no score. Frames under 288 pixels are judged by four patches
    of 96 pixels only: their scores scatter widely and mean little but on average.

    Not NIQE to the letter, so that no value of another program stands beside it: of the products along both diagonals
    scikit-video gives the left scale twice and never the right one (its pristine model too), pixels beyond the frame
    are 0, and single precision of local deviations costs up to half a percent. Tested against tests/fixtures/
    niqe_reference.py.
    """
    score = measure("niqe").niqe

    def values(chunk: FrameChunk) -> Values:
        return np.array([_natural(score, frame) for frame in chunk.prediction])

    return FrameMetric(values)


def _natural(score: Measure, frame: Pixels) -> float:
    if min(frame.shape[:2]) < SMALLEST_NIQE or (frame == frame[0, 0]).all():
        return np.nan
    return float(_quietly(score, luma(frame[None]))[0])


def luma(frames: Pixels) -> NDArray[np.float64]:
    """Return (N, H, W, 1) in [0, 255] of frames (N, H, W, 3)."""
    brightness: NDArray[np.float64] = utilities().rgb2gray(frames)
    # It takes videos of four columns or fewer for something else.
    return brightness.reshape(*frames.shape[:3], 1)


def _frame_metric(score: Measure, smallest: int) -> FrameMetric:
    def values(chunk: FrameChunk) -> Values:
        if min(chunk.prediction.shape[1:3]) < smallest:
            return np.full(len(chunk), np.nan)
        truth = truth_of(chunk)

        def of_rows(rows: NDArray[np.intp]) -> NDArray[np.floating]:
            return score(luma(truth[rows]), luma(chunk.prediction[rows]))

        # Frame by frame these measures keep one processor busy; NumPy and SciPy let others work meanwhile.
        parts = np.array_split(np.arange(len(chunk)), min(THREADS, len(chunk)))
        with ThreadPoolExecutor(THREADS) as pool:
            scores = np.concatenate(_quietly(lambda: list(pool.map(of_rows, parts))))
        return np.minimum(scores.astype(np.float64), PSNR_MAX)

    return FrameMetric(values)


def _quietly(score: Callable[..., Scores], *videos: NDArray[np.float64]) -> Scores:
    """Return infinity and NaN, which are dealt with, without NumPy's and SciPy's warnings."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(*videos)


class StRred:
    """Reduced-reference entropic differences (Soundararajan and Bovik 2013) by skvideo.measure.strred.

    Entropies of one band of a steerable pyramid are compared block by block, within frames and in the differences of
    frames 0 and 1, 2 and 3, ...; the score is the product of the two means. An odd last frame does not count.

    As in the authors' program, not as in the paper, entropies lack their factor 1/2 and have the natural logarithm of
    2 pi e, and differences are taken block by block before they are averaged. scikit-video inverts in single
    precision: off by less than 0.05 %, of frames below 96 pixels by up to 3 %. Tested against tests/fixtures/
    strred_reference.py.
    """

    def clip(self, clip: MetricClip) -> _StRredOfClip:
        return _StRredOfClip()


class _StRredOfClip:
    def __init__(self) -> None:
        self._total = 0
        self._waiting: tuple[Pixels, Pixels] | None = None
        self._rows: list[Values] = []
        """Spatial and temporal difference of each pair of frames."""

    def add(self, chunk: FrameChunk) -> None:
        self._total += len(chunk)
        for frames in zip(chunk.prediction, truth_of(chunk), strict=True):
            if self._waiting is None:
                self._waiting = frames
                continue
            predictions, truths = (np.stack(pair) for pair in zip(self._waiting, frames, strict=True))
            self._waiting = None
            self._rows.append(_entropic_difference(predictions, truths))

    def finish(self) -> ClipScores:
        rows = np.array(self._rows).reshape(-1, 2)
        rows = rows[np.isfinite(rows).all(1)]
        value = float(np.prod(rows.mean(0))) if len(rows) else None
        return ClipScores(np.empty(0), value, 2 * len(rows), self._total)


def _entropic_difference(predictions: Pixels, truths: Pixels) -> Values:
    """Return the spatial and the temporal index (2,) for two frames each, NaN where they are undefined."""
    if min(predictions.shape[1:3]) < SMALLEST_STRRED:
        return np.full(2, np.nan)
    try:
        rows, *_ = _quietly(measure("strred").strred, luma(truths), luma(predictions))
    except np.linalg.LinAlgError:
        return np.full(2, np.nan)
    return np.asarray(rows[0, :2], np.float64)
