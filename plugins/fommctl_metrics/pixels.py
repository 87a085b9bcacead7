"""Pixel differences in red, green and blue.

Frames are processed one by one: a frame and its difference fit in the processor's cache, a whole chunk does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api import InputError
from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, FrameScorer, MetricClip

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]


def truth_of(chunk: FrameChunk) -> Pixels:
    """Return the true frames (N, H, W, 3). Raises InputError if there are none."""
    if chunk.truth is None:
        raise InputError("there is no true video to compare with", "Leave out the metrics that need one.")
    return chunk.truth


class FrameMetric:
    """A metric whose score of a clip is the mean over its frames."""

    def __init__(self, score: Callable[[FrameChunk], Values]) -> None:
        """score: returns the values (N,) of the frames of a chunk, NaN for frames that cannot be scored."""
        self._score = score

    def clip(self, clip: MetricClip) -> FrameScorer:
        return FrameScorer(self._score)


PSNR_MAX = 100.0
"""PSNR of equal pictures in dB, instead of infinity."""
SIDES = ("difference", "repeating")


def l1_paper() -> FrameMetric:
    """Return the mean absolute difference, in [0, 1], from the prediction before rounding to 8 bits if that is known.

    This is the loss printed by FOMM's reconstruction.py: over all pixels and channels, averaged over the frames of all
    clips, including the first frame of each.
    """
    return FrameMetric(_l1_exact)


def l1_strict() -> FrameMetric:
    """Return the mean absolute difference, in [0, 1], of the 8-bit frames.

    It is averaged over the frames of each clip, then over clips, as in Monkey-Net.
    """
    return FrameMetric(_l1)


class RelativeL1:
    """Mean absolute difference relative to that of repeating the first true frame.

    Below 1, a model is better than no motion at all. Over several clips, it is the ratio of the mean differences (see
    `l1_strict`), so that clips with little motion have little weight.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        return _RelativeL1()


class _RelativeL1:
    def __init__(self) -> None:
        self._first: Pixels | None = None
        self._rows: list[NDArray[np.float64]] = []
        """Differences of the prediction and of the repeated first frame, (N, 2) for each chunk."""

    def add(self, chunk: FrameChunk) -> None:
        if not len(chunk):
            return
        truth = truth_of(chunk)
        if self._first is None:
            self._first = truth[0].copy()
        repeated = FrameChunk(np.broadcast_to(self._first, truth.shape), truth)
        self._rows.append(np.stack([_l1(chunk), _l1(repeated)], axis=1))

    def finish(self) -> ClipScores:
        rows = np.concatenate([np.empty((0, 2)), *self._rows])
        means = (
            {name: column.mean(keepdims=True) for name, column in zip(SIDES, rows.T, strict=True)} if len(rows) else {}
        )
        scores = ClipScores(np.empty(0), None, len(rows), len(rows), means)
        return replace(scores, value=relative_l1([scores]))


def relative_l1(clips: Sequence[ClipScores]) -> float | None:
    """Return `l1.relative` of several clips; None if nothing moves in the true ones."""
    own, repeated = (sum(float(clip.state[side][0]) for clip in clips if clip.state) for side in SIDES)
    return own / repeated if repeated else None


def psnr() -> FrameMetric:
    """Return the PSNR, 10 log10(255^2 / mean squared difference), in dB, at most PSNR_MAX."""
    return FrameMetric(lambda chunk: decibels(np.array([_mean_square(*pair) for pair in _pairs(chunk)])))


def decibels(mean_squares: Values) -> Values:
    """Convert mean squared differences, in squared levels of 255, to PSNR in dB, at most PSNR_MAX."""
    with np.errstate(divide="ignore"):
        values: Values = 10 * np.log10(255.0**2 / mean_squares)
    return values.clip(max=PSNR_MAX)


def _pairs(chunk: FrameChunk) -> zip[tuple[Pixels, Pixels]]:
    return zip(chunk.prediction, truth_of(chunk), strict=True)


def _difference(prediction: Pixels, truth: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.subtract(prediction, truth, dtype=np.int16)


def _l1(chunk: FrameChunk) -> Values:
    sums = [np.abs(difference := _difference(*pair), out=difference).mean(dtype=np.float64) for pair in _pairs(chunk)]
    return np.array(sums) / 255


def _l1_exact(chunk: FrameChunk) -> Values:
    if chunk.exact is None:
        return _l1(chunk)
    level = np.float32(1 / 255)
    pairs = zip(chunk.exact, truth_of(chunk), strict=True)
    return np.array([np.abs(exact - truth * level).mean(dtype=np.float64) for exact, truth in pairs])


def _mean_square(prediction: Pixels, truth: Pixels) -> float:
    difference = _difference(prediction, truth)
    return float(np.multiply(difference, difference, dtype=np.int32).mean(dtype=np.float64))
