"""Fréchet Inception distance (Heusel et al. 2017) between all predicted and all true frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fommctl.api.metrics import ClipScores, FrameChunk, MetricClip
from fommctl_metrics.frames import Pixels, truth_of
from fommctl_metrics.inception import InceptionFeatures
from fommctl_metrics.places import INCEPTION_URL
from fommctl_metrics.weights import published, torchmetrics

BATCH = 16

Features = NDArray[np.float32]


class FrechetDistance:
    """Features of all frames are kept (8 kB a frame and side); single clips have no score."""

    def __init__(self, inception_url: str = INCEPTION_URL) -> None:
        """Raises MissingError where torchmetrics or the weights are absent, ModelError where these are damaged."""
        torchmetrics()
        self._network = InceptionFeatures(published(inception_url))

    def clip(self, clip: MetricClip) -> _FrechetOfClip:
        return _FrechetOfClip(self._network)


class _FrechetOfClip:
    def __init__(self, network: InceptionFeatures) -> None:
        self._network = network
        none = np.empty((0, network.num_features), np.float32)
        self._predicted, self._true = [none], [none]

    def add(self, chunk: FrameChunk) -> None:
        self._predicted.append(self._features(chunk.prediction))
        self._true.append(self._features(truth_of(chunk)))

    def finish(self) -> ClipScores:
        state = {"predicted": np.concatenate(self._predicted), "true": np.concatenate(self._true)}
        total = len(state["true"])
        return ClipScores(np.empty(0), None, total, total, state)

    def _features(self, frames: Pixels) -> Features:
        pictures = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
        batches = [torch.from_numpy(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
        return np.concatenate([self._network(batch).numpy() for batch in batches])


class _Identity(nn.Identity):
    """For torchmetrics: pictures that are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def combined(clips: Sequence[ClipScores]) -> float | None:
    """FID of the frames of all clips together, by torchmetrics; None for fewer than two."""
    states = [clip.state for clip in clips if clip.state]
    if sum(len(state["true"]) for state in states) < 2:
        return None
    from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(_Identity(states[0]["true"].shape[1]))
    for state in states:
        distance.update(torch.from_numpy(state["true"]).double(), real=True)
        distance.update(torch.from_numpy(state["predicted"]).double(), real=False)
    value = float(distance.compute())
    # Of equal frames it is zero but for rounding.
    return max(value, 0.0) if np.isfinite(value) else None
