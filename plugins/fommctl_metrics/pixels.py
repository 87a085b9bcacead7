"""Differences of pixels, in red, green and blue.

Frames are taken one by one: a frame and its difference stay in the processor's cache, a chunk of them would not.
"""

from __future__ import annotations

import numpy as np

from fommctl.api.metrics import FrameChunk
from fommctl_metrics.frames import FrameMetric, Pixels, Values, truth_of

PSNR_MAX = 100.0
"""dB; stands for the infinity of equal pictures."""


def l1_paper() -> FrameMetric:
    """Mean absolute difference in [0, 1], before the prediction is rounded to 8 bits where it is known so.

    As FOMM's reconstruction.py prints it: over all pixels and channels of all frames, the first one included, and
    averaged over the frames of all clips.
    """
    return FrameMetric(_l1_exact)


def l1_strict() -> FrameMetric:
    """Mean absolute difference in [0, 1] of frames as they are written, in 8 bits.

    Monkey-Net's average: over the frames of a clip, then over clips.
    """
    return FrameMetric(_l1)


def psnr() -> FrameMetric:
    """10 log10(255^2 / mean squared difference), in dB, at most PSNR_MAX."""
    return FrameMetric(lambda chunk: decibels(np.array([_mean_square(*pair) for pair in _pairs(chunk)])))


def decibels(mean_squares: Values) -> Values:
    """PSNR of mean squared differences in levels of 255, at most PSNR_MAX."""
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
