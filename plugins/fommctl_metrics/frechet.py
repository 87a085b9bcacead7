"""Fréchet Inception distance (Heusel et al. 2017) between all predicted and all true frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fommctl.api import ModelError
from fommctl.api.metrics import ClipScores, FrameChunk, MetricClip
from fommctl_metrics.locations import INCEPTION_URL
from fommctl_metrics.pixels import Pixels, truth_of
from fommctl_metrics.weights import published, torchmetrics

SIDE = 299
"""Side of the network's training pictures, pixels."""
EPSILON = 1e-3
"""Epsilon of the network's BatchNorms."""


class InceptionFeatures(nn.Module):
    """Inception v3 (Szegedy et al. 2016) up to its pooled features, with the weights of the published FID.

    Maps frames (N, 3, H, W) uint8 to features (N, D) float32; D is 2048 with the published weights.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """tensors: the weights, by name. Raises ModelError if they are not Inception's."""
        super().__init__()
        names = [name.removesuffix(".conv.weight") for name in tensors if name.endswith(".conv.weight")]
        try:
            self._layers = {name: _folded(tensors, name) for name in names}
            self.num_features = int(self(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)).shape[1])
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the weights are not those of Inception: {error}", "Delete the file.") from error

    @torch.inference_mode()
    def forward(self, frames: Tensor) -> Tensor:
        """Return the features of frames, resized to 299 pixels as in torchmetrics: bilinear with anti-aliasing."""
        x = functional.interpolate(frames.float(), (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = (x - 128) / 128
        x = self._layer(x, "Conv2d_1a_3x3", stride=2, padded=False)
        x = self._layer(x, "Conv2d_2a_3x3", padded=False)
        x = functional.max_pool2d(self._layer(x, "Conv2d_2b_3x3"), 3, 2)
        x = self._layer(x, "Conv2d_3b_1x1")
        x = functional.max_pool2d(self._layer(x, "Conv2d_4a_3x3", padded=False), 3, 2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self._block(x, name, ["branch1x1"], ["branch5x5_1", "branch5x5_2"], _numbered("branch3x3dbl", 3))
        x = self._reduction(x, "Mixed_6a", ["branch3x3"], _numbered("branch3x3dbl", 3))
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self._block(x, name, ["branch1x1"], _numbered("branch7x7", 3), _numbered("branch7x7dbl", 5))
        x = self._reduction(x, "Mixed_7a", _numbered("branch3x3", 2), _numbered("branch7x7x3", 4))
        x = self._last(x, "Mixed_7b", _average)
        x = self._last(x, "Mixed_7c", lambda maps: functional.max_pool2d(maps, 3, 1, padding=1))
        return x.mean((2, 3))

    def _layer(self, x: Tensor, name: str, *, stride: int = 1, padded: bool = True) -> Tensor:
        weight, bias = self._layers[name]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if padded else 0
        return functional.conv2d(x, weight, bias, stride, padding).relu_()

    def _branch(self, x: Tensor, block: str, names: list[str]) -> Tensor:
        for name in names:
            x = self._layer(x, f"{block}.{name}")
        return x

    def _block(self, x: Tensor, block: str, *branches: list[str]) -> Tensor:
        parts = [self._branch(x, block, names) for names in branches]
        return torch.cat([*parts, self._branch(_average(x), block, ["branch_pool"])], 1)

    def _reduction(self, x: Tensor, block: str, *branches: list[str]) -> Tensor:
        parts = [
            self._layer(self._branch(x, block, names[:-1]), f"{block}.{names[-1]}", stride=2, padded=False)
            for names in branches
        ]
        return torch.cat([*parts, functional.max_pool2d(x, 3, 2)], 1)

    def _last(self, x: Tensor, block: str, pool: Callable[[Tensor], Tensor]) -> Tensor:
        stems = [(["branch3x3_1"], "branch3x3_2"), (_numbered("branch3x3dbl", 2), "branch3x3dbl_3")]
        parts = [self._branch(x, block, ["branch1x1"])]
        for names, fork in stems:
            stem = self._branch(x, block, names)
            parts += [self._branch(stem, block, [f"{fork}{side}"]) for side in "ab"]
        return torch.cat([*parts, self._branch(pool(x), block, ["branch_pool"])], 1)


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{number}" for number in range(1, count + 1)]


def _average(maps: Tensor) -> Tensor:
    return functional.avg_pool2d(maps, 3, 1, padding=1, count_include_pad=False)


def _folded(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution, with its normalisation folded in."""
    scale, shift, mean, variance = (
        tensors[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / (variance + EPSILON).sqrt()
    return tensors[f"{name}.conv.weight"] * scale[:, None, None, None], shift - mean * scale


BATCH = 16

Features = NDArray[np.float32]


class FrechetDistance:
    """FID between all predicted and all true frames of a run (equation 6); single clips are not scored.

    The features of all frames are kept in memory, 8 kB per frame for each of prediction and truth.
    """

    def __init__(self, inception_url: str = INCEPTION_URL) -> None:
        """Raises MissingError if torchmetrics or the weights are missing, ModelError if the weights are damaged."""
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
    """Stands in for torchmetrics' network, since its inputs are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def combined(clips: Sequence[ClipScores]) -> float | None:
    """Return the FID over the frames of all clips together, by torchmetrics; None for fewer than two frames."""
    states = [clip.state for clip in clips if clip.state]
    if sum(len(state["true"]) for state in states) < 2:
        return None
    from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(_Identity(states[0]["true"].shape[1]))
    for state in states:
        distance.update(torch.from_numpy(state["true"]).double(), real=True)
        distance.update(torch.from_numpy(state["predicted"]).double(), real=False)
    value = float(distance.compute())
    # Rounding can make the zero of equal frames negative.
    return max(value, 0.0) if np.isfinite(value) else None
