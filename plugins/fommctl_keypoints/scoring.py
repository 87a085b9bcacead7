"""Inputs that the metrics of this plugin share, and means over the known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fommctl.api import UsageError
from fommctl.api.metrics import EmbeddingSource, FrameChunk, KeypointSource, MetricClip

Scores = NDArray[np.float64]
Points = NDArray[np.float64]


def joined(parts: list[Scores]) -> Scores:
    """Concatenate arrays (N,); without any, the result is empty."""
    return np.concatenate(parts) if parts else np.zeros(0)


def keypoints_of(clip: MetricClip) -> KeypointSource:
    """Return the clip's source of keypoints. Raises UsageError if it has none."""
    if clip.keypoints is None:
        raise UsageError(f"there are no keypoints for {clip.name}", "Choose a detector with landmarks.")
    return clip.keypoints


def embeddings_of(clip: MetricClip) -> EmbeddingSource:
    """Return the clip's source of embeddings. Raises UsageError if it has none."""
    if clip.embeddings is None:
        raise UsageError(f"there are no embeddings for {clip.name}", "Choose an embedder.")
    return clip.embeddings


def both(source: KeypointSource, chunk: FrameChunk) -> tuple[Points, Points]:
    """Return keypoints (N, K, 2) of prediction and truth, in pixels. Raises UsageError if there is no truth."""
    prediction, truth = source(chunk)
    if truth is None:
        raise UsageError(f"{source.name} returned no keypoints of the truth", "Pass in the true frames too.")
    return prediction, truth


def found(points: Points) -> NDArray[np.bool_]:
    """Return which of the keypoints (..., K, 2) are known, (..., K)."""
    return np.asarray(np.isfinite(points).all(-1))


def mean_where(values: Scores, counted: NDArray[np.bool_]) -> Scores:
    """Return the mean (N,) of each row of values (N, K) over the entries marked in `counted`; NaN for rows without."""
    number = counted.sum(-1)
    total = np.where(counted, values, 0.0).sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
