"""scikit-video's metrics of brightness, Y = 0.2989 R + 0.5870 G + 0.1140 B."""

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
"""Smallest side of a frame, pixels: SSIM's window."""
SMALLEST_MS_SSIM = 176
"""Smallest side that scikit-video accepts, pixels: SSIM's window after four halvings."""
SMALLEST_NIQE = 194
"""Smallest side that scikit-video accepts, pixels: a little more than two patches of 96."""
SMALLEST_STRRED = 64
"""Smallest side of a frame, pixels. The band is an eighth of it; below, it has too few blocks of 3x3 for their
covariance."""

THREADS = 2
Measure = Callable[..., NDArray[np.floating]]
Scores = TypeVar("Scores")


def psnr() -> FrameMetric:
    """Return the PSNR of brightness, in dB, at most PSNR_MAX, by skvideo.measure.psnr."""
    return _frame_metric(measure("psnr").psnr, 1)


def ssim() -> FrameMetric:
    """Return SSIM (Wang et al. 2004) by skvideo.measure.ssim.

    The window is a Gaussian of 11 pixels with sigma 1.5; pixels whose window leaves the frame are ignored. Large frames
    are first reduced by round(smaller side / 256).
    """
    return _frame_metric(measure("ssim").ssim, SMALLEST_SSIM)


def ms_ssim() -> FrameMetric:
    """Return multi-scale SSIM (Wang et al. 2003, equation 7) by skvideo.measure.msssim.

    The weights are the published ones, except that scikit-video omits the exponent of SSIM at the last scale (0.1333).
    Frames with negative contrast similarity at any scale are not scored.
    """
    return _frame_metric(measure("msssim").msssim, SMALLEST_MS_SSIM)


def niqe() -> FrameMetric:
    """Return NIQE, the distance of the prediction from the statistics of natural pictures (Mittal et al. 2013), by
    skvideo.measure.niqe.

    Frames of uniform brightness have no such statistics and are not scored. Frames below 288 pixels consist of only
    four patches of 96 pixels: their scores scatter widely and are meaningful only on average.

    Values are not comparable with those of other programs: for the products along both diagonals, scikit-video uses the
    left scale twice and never the right one (in its pristine model too), pixels beyond the frame are 0, and local
    deviations in single precision cost up to half a percent.
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
    """Return the brightness (N, H, W, 1) in [0, 255] of frames (N, H, W, 3)."""
    brightness: NDArray[np.float64] = utilities().rgb2gray(frames)
    # rgb2gray guesses the layout, and is wrong for videos of four columns or fewer.
    return brightness.reshape(*frames.shape[:3], 1)


def _frame_metric(score: Measure, smallest: int) -> FrameMetric:
    def values(chunk: FrameChunk) -> Values:
        if min(chunk.prediction.shape[1:3]) < smallest:
            return np.full(len(chunk), np.nan)
        truth = truth_of(chunk)

        def of_rows(rows: NDArray[np.intp]) -> NDArray[np.floating]:
            return score(luma(truth[rows]), luma(chunk.prediction[rows]))

        # scikit-video uses one core; threads help because NumPy and SciPy release the GIL.
        parts = np.array_split(np.arange(len(chunk)), min(THREADS, len(chunk)))
        with ThreadPoolExecutor(THREADS) as pool:
            scores = np.concatenate(_quietly(lambda: list(pool.map(of_rows, parts))))
        return np.minimum(scores.astype(np.float64), PSNR_MAX)

    return FrameMetric(values)


def _quietly(score: Callable[..., Scores], *videos: NDArray[np.float64]) -> Scores:
    """Call `score` without NumPy's and SciPy's warnings about infinity and NaN, which callers handle."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(*videos)


class StRred:
    """ST-RRED, reduced-reference entropic differences (Soundararajan and Bovik 2013), by skvideo.measure.strred.

    Entropies of one band of a steerable pyramid are compared block by block, within frames and in the differences of
    frames 0 and 1, 2 and 3, ...; the score is the product of the two means. An odd last frame is ignored.

    As in the authors' program, but not in the paper, entropies lack the factor 1/2 and contain the natural logarithm of
    2 pi e, and differences are taken block by block before averaging. scikit-video inverts matrices in single
    precision: results are off by less than 0.05 %, for frames below 96 pixels by up to 3 %.
    """

    def clip(self, clip: MetricClip) -> _StRredOfClip:
        return _StRredOfClip()


class _StRredOfClip:
    def __init__(self) -> None:
        self._total = 0
        self._waiting: tuple[Pixels, Pixels] | None = None
        self._rows: list[Values] = []
        """Spatial and temporal index of each pair of frames."""

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
    """Return the spatial and the temporal index, (2,), of two frames (2, H, W, 3) each; NaN if undefined."""
    if min(predictions.shape[1:3]) < SMALLEST_STRRED:
        return np.full(2, np.nan)
    try:
        rows, *_ = _quietly(measure("strred").strred, luma(truths), luma(predictions))
    except np.linalg.LinAlgError:
        return np.full(2, np.nan)
    return np.asarray(rows[0, :2], np.float64)
