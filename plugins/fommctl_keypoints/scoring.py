"""Shared by the metrics of this plugin: a scorer that works frame by frame, and its inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fommctl.api import UsageError
from fommctl.api.metrics import (
    ClipScores,
    EmbeddingSource,
    FrameChunk,
    KeypointSource,
    MetricClip,
    mean_of_frames,
)

Scores = NDArray[np.float64]
Points = NDArray[np.float64]


class FrameScorer:
    """Scores each chunk on its own; the clip's value is the mean over the frames that could be scored."""

    def __init__(self, score: Callable[[FrameChunk], Scores]) -> None:
        """score: gives (N,) for the frames of a chunk, NaN where one cannot be scored."""
        self._score = score
        self._scores: list[Scores] = []

    def add(self, chunk: FrameChunk) -> None:
        """Take the next frames."""
        self._scores.append(self._score(chunk))

    def finish(self) -> ClipScores:
        """Return the score, after the last frames."""
        return mean_of_frames(joined(self._scores))


def joined(parts: list[Scores]) -> Scores:
    """Return arrays (N,) one after the other."""
    return np.concatenate(parts) if parts else np.zeros(0)


def keypoints_of(clip: MetricClip) -> KeypointSource:
    """Return the keypoints of a clip. Raises UsageError where the clip has no source of keypoints."""
    if clip.keypoints is None:
        raise UsageError(f"there are no keypoints for {clip.name}", "Name a detector of landmarks.")
    return clip.keypoints


def embeddings_of(clip: MetricClip) -> EmbeddingSource:
    """Return the embeddings of a clip. Raises UsageError where the clip has no source of embeddings."""
    if clip.embeddings is None:
        raise UsageError(f"there are no embeddings for {clip.name}", "Name an embedder.")
    return clip.embeddings


def both(source: KeypointSource, chunk: FrameChunk) -> tuple[Points, Points]:
    """Return keypoints (N, K, 2) of prediction and truth. Raises UsageError where the truth has none."""
    prediction, truth = source(chunk)
    if truth is None:
        raise UsageError(f"{source.name} gives no keypoints of the truth", "Pass in the true frames too.")
    return prediction, truth


def found(points: Points) -> NDArray[np.bool_]:
    """Return (..., K, 2) -> (..., K): which keypoints are there."""
    return np.asarray(np.isfinite(points).all(-1))


def mean_where(values: Scores, counted: NDArray[np.bool_]) -> Scores:
    """Return (N, K) -> (N,): the mean over those that are counted, NaN where none is."""
    number = counted.sum(-1)
    total = np.where(counted, values, 0.0).sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
