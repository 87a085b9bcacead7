"""Inputs and results of metrics; importing this module imports numpy.

A metric sees a clip as a stream of chunks of consecutive frames, so that clips of any length fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ClipScorer",
    "ClipScores",
    "EmbeddingSource",
    "FrameChunk",
    "FrameScorer",
    "KeypointSource",
    "Metric",
    "MetricClip",
    "mean_of_frames",
]


@dataclass(frozen=True, slots=True)
class FrameChunk:
    """Consecutive frames of a clip."""

    prediction: NDArray[np.uint8]
    """(N, H, W, 3) RGB."""
    truth: NDArray[np.uint8] | None
    """(N, H, W, 3) RGB: the reference that the metric needs (see `MetricSpec.needs`); source pictures and driving
    frames may have another size. None if the metric needs none and there is no truth."""
    exact: NDArray[np.float32] | None = None
    """(N, H, W, 3) in [0, 1]: the prediction before it was rounded to 8 bits; None for finished results."""
    first: int = 0
    """Index of the first of these frames in the clip."""

    def __len__(self) -> int:
        return len(self.prediction)


class KeypointSource(Protocol):
    """A metric's source of keypoints: a detector, the ground truth, or the model itself."""

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def __call__(self, chunk: FrameChunk) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return keypoints (N, K, 2) of prediction and truth in pixels, x before y, NaN for absent ones; a frame in
        which nothing was found is all NaN. The second is None if there is no truth."""
        ...


class EmbeddingSource(Protocol):
    """A metric's source of embeddings."""

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return embeddings (N, D) of frames (N, H, W, 3), all NaN for frames in which nothing was found."""
        ...


@dataclass(frozen=True, slots=True)
class MetricClip:
    """Properties of a clip that a metric knows before the first frame."""

    name: str
    rate: float
    """Frames per second."""
    keypoints: KeypointSource | None = None
    """Never None for metrics that use keypoints."""
    embeddings: EmbeddingSource | None = None
    """Never None for metrics that use embeddings."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The scores of one clip."""

    frames: NDArray[np.float64]
    """(N,) scores of the frames, NaN for frames that could not be scored; empty for metrics of whole clips only."""
    value: float | None
    """The score of the whole clip, finite; None if it could not be scored."""
    scored: int
    """Number of frames that the value is based on."""
    total: int
    """Number of frames in the clip."""
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Arrays of this clip for `MetricSpec.combine`."""


class ClipScorer(Protocol):
    """Scores one clip."""

    def add(self, chunk: FrameChunk) -> None:
        """Add the next frames."""
        ...

    def finish(self) -> ClipScores:
        """Return the score, after the last frames."""
        ...


class Metric(Protocol):
    """Scores clips, one or several at a time."""

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        ...


def mean_of_frames(values: Sequence[float] | NDArray[np.float64]) -> ClipScores:
    """Return scores of a clip whose value is the mean over its frames; NaN marks frames that could not be scored."""
    frames = np.asarray(values, np.float64)
    scored = frames[np.isfinite(frames)]
    value = float(scored.mean()) if len(scored) else None
    return ClipScores(np.where(np.isfinite(frames), frames, np.nan), value, len(scored), len(frames))


class FrameScorer:
    """Scores each chunk on its own; the clip's value is the mean over the frames that could be scored."""

    def __init__(self, score: Callable[[FrameChunk], NDArray[np.float64]]) -> None:
        """score: returns the values (N,) of the frames of a chunk, NaN for frames that cannot be scored."""
        self._score = score
        self._values: list[NDArray[np.float64]] = []

    def add(self, chunk: FrameChunk) -> None:
        """Add the next frames."""
        self._values.append(self._score(chunk))

    def finish(self) -> ClipScores:
        """Return the score, after the last frames."""
        return mean_of_frames(np.concatenate([np.empty(0), *self._values]))
