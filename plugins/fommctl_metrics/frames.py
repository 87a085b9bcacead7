"""Metrics that score each frame on its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fommctl.api import InputError
from fommctl.api.metrics import ClipScores, FrameChunk, MetricClip, mean_of_frames

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]


def truth_of(chunk: FrameChunk) -> Pixels:
    """The true frames (N, H, W, 3). Raises InputError where there are none."""
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
