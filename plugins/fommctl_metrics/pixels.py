"""Differences of pixels, in red, green and blue.

Frames are taken one by one: a frame and its difference stay in the processor's cache, a chunk of them would not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api import InputError
from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, MetricClip, mean_of_frames

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]


def truth_of(chunk: FrameChunk) -> Pixels:
    """Return the true frames (N, H, W, 3). Raises InputError where there are none."""
    if chunk.truth is None:
        raise InputError("there is no true video to compare with", "Leave out the metrics that need one.")
    return chunk.truth


class FrameMetric:
    """Mean over frames."""

    def __init__(self, score: Callable[[FrameChunk], Values]) -> None:
        """score: values (N,) of the frames of a chunk, NaN where one cannot be scored."""
        self._score = score

    def clip(self, clip: MetricClip) -> FrameScorer:
        return FrameScorer(self._score)


class FrameScorer:
    """The frames of one clip."""

    def __init__(self, score: Callable[[FrameChunk], Values]) -> None:
        self._score = score
        self._values: list[Values] = []

    def add(self, chunk: FrameChunk) -> None:
        self._values.append(self._score(chunk))

    def finish(self) -> ClipScores:
        return mean_of_frames(np.concatenate([np.empty(0), *self._values]))


PSNR_MAX = 100.0
"""Value in dB for equal pictures, instead of infinity."""
SIDES = ("difference", "repeating")


def l1_paper() -> FrameMetric:
    """Return mean absolute difference in [0, 1], before the prediction is rounded to 8 bits where it is known so.

    As FOMM's reconstruction.py prints it: over all pixels and channels of all frames, the first one included, and
    averaged over the frames of all clips.
    """
    return FrameMetric(_l1_exact)


def l1_strict() -> FrameMetric:
    """Return mean absolute difference in [0, 1] of frames as they are written, in 8 bits.

    Monkey-Net's average: over the frames of a clip, then over clips.
    """
    return FrameMetric(_l1)


class RelativeL1:
    """Mean absolute difference over that of a video that repeats the true clip's first frame.

    Over the frames of a clip, as `l1_strict`; of several clips it is the mean difference over the mean of repeating, so
    that a clip in which little happens weighs little. Below 1 a model does better than no motion at all.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        return _RelativeL1()


class _RelativeL1:
    def __init__(self) -> None:
        self._first: Pixels | None = None
        self._rows: list[NDArray[np.float64]] = []
        """Differences of each frame and of the repeated first one, (N, 2) a chunk."""

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
    """Return `l1.relative` of several clips; None where nothing moves in the true ones."""
    own, repeated = (sum(float(clip.state[side][0]) for clip in clips if clip.state) for side in SIDES)
    return own / repeated if repeated else None


def psnr() -> FrameMetric:
    """Return 10 log10(255^2 / mean squared difference), in dB, at most PSNR_MAX."""
    return FrameMetric(lambda chunk: decibels(np.array([_mean_square(*pair) for pair in _pairs(chunk)])))


def decibels(mean_squares: Values) -> Values:
    """Return PSNR of mean squared differences in levels of 255, at most PSNR_MAX."""
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
