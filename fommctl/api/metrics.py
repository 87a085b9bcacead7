"""What metrics are given and what they return; importing this module imports numpy.

A metric sees a clip as a stream of chunks of consecutive frames, so that its length does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ClipScorer",
    "ClipScores",
    "EmbeddingSource",
    "FrameChunk",
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
    """(N, H, W, 3) RGB: what the metric needs (see `MetricSpec.needs`); source pictures and driving frames may have a
    size of their own. None where it needs nothing and there is no truth."""
    exact: NDArray[np.float32] | None = None
    """(N, H, W, 3) in [0, 1]: the prediction before it was rounded to 8 bits; None for finished results."""
    first: int = 0
    """Index of the first of these frames in the clip."""

    def __len__(self) -> int:
        return len(self.prediction)


class KeypointSource(Protocol):
    """A metric's source of keypoints: a detector, true ones, or the model's own."""

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def __call__(self, chunk: FrameChunk) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return keypoints (N, K, 2) of prediction and truth in pixels, x before y, NaN where one is absent; a frame in
        which nothing was found is NaN throughout. None for the truth where there is none."""
        ...


class EmbeddingSource(Protocol):
    """A metric's source of embeddings."""

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (N, D) of frames (N, H, W, 3), NaN throughout where nothing was found."""
        ...


@dataclass(frozen=True, slots=True)
class MetricClip:
    """Properties of a clip that a metric may know beforehand."""

    name: str
    rate: float
    """Frames a second."""
    keypoints: KeypointSource | None = None
    """Never None for metrics that use keypoints."""
    embeddings: EmbeddingSource | None = None
    """Never None for metrics that use embeddings."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The scores of one clip."""

    frames: NDArray[np.float64]
    """(N,) one for each frame, NaN where it could not be scored; empty where single frames have no score."""
    value: float | None
    """The score of the whole clip, finite; None where it could not be scored."""
    scored: int
    """Frames that the value rests on."""
    total: int
    """Frames of the clip."""
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Arrays that `MetricSpec.combine` needs of the clip."""


class ClipScorer(Protocol):
    """Scores one clip."""

    def add(self, chunk: FrameChunk) -> None:
        """Take the next frames."""
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
    """Return scores of a clip whose value is the mean over its frames; NaN: this frame could not be scored."""
    frames = np.asarray(values, np.float64)
    scored = frames[np.isfinite(frames)]
    value = float(scored.mean()) if len(scored) else None
    return ClipScores(np.where(np.isfinite(frames), frames, np.nan), value, len(scored), len(frames))
