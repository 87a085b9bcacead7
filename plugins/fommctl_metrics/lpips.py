"""Learned perceptual distance (Zhang et al. 2018), version 0.1 on AlexNet.

The weights of the comparison come with torchmetrics. Its own class takes AlexNet from torchvision, each build of which
fits only one build of PyTorch; the few layers of AlexNet are written out here instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fommctl.api import ModelError
from fommctl.api.metrics import FrameChunk
from fommctl_metrics.locations import ALEXNET_URL
from fommctl_metrics.pixels import FrameMetric, Pixels, Values, truth_of
from fommctl_metrics.weights import published, torchmetrics

SMALLEST = 31
"""Smallest side of a frame, pixels; below it, AlexNet's last map would be empty."""
TAPS = (1, 4, 7, 9, 11)
"""Indices of the layers whose output is compared: the ReLUs."""
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of red, green and blue in [-1, 1]."""
BATCH = 16


def lpips(alexnet_url: str = ALEXNET_URL) -> FrameMetric:
    """Return LPIPS, averaged over frames; frames smaller than SMALLEST are not scored.

    Raises MissingError if torchmetrics or AlexNet's weights are missing, ModelError if the weights are damaged.
    """
    heads = torchmetrics() / "functional/image/lpips_models/alex.pth"
    distance = PerceptualDistance(published(alexnet_url), torch.load(heads, map_location="cpu", weights_only=True))

    def score(chunk: FrameChunk) -> Values:
        if min(chunk.prediction.shape[1:3]) < SMALLEST:
            return np.full(len(chunk), np.nan)
        truth = truth_of(chunk)
        starts = range(0, len(chunk), BATCH)
        parts = [distance(*(_tensor(each[at : at + BATCH]) for each in (chunk.prediction, truth))) for at in starts]
        return np.concatenate([np.empty(0), *(part.double().numpy() for part in parts)])

    return FrameMetric(score)


class PerceptualDistance(nn.Module):
    """LPIPS (Zhang et al. 2018, equation 1): the weighted squared difference of features normalised to length 1 at
    each position, averaged over positions and summed over layers."""

    def __init__(self, alexnet: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        """alexnet: torchvision's weights, by name.  heads: `linN.model.1.weight` (1, C, 1, 1) of the five layers.

        Raises ModelError if the weights are not AlexNet's.
        """
        super().__init__()
        self.features = alexnet_features()
        own = {name.removeprefix("features."): tensor for name, tensor in alexnet.items() if "features." in name}
        try:
            self.features.load_state_dict(own)
        except RuntimeError as error:
            raise ModelError(
                f"the weights of AlexNet are not the expected ones: {error}",
                "Delete the file; it will be downloaded again.",
            ) from error
        self.heads = [heads[f"lin{number}.model.1.weight"] for number in range(len(TAPS))]
        self.mean, self.deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the distances (N,) of frames (N, 3, H, W) in [0, 1]."""
        x = (2 * torch.cat([one, other]) - 1 - self.mean) / self.deviation
        distance = x.new_zeros(len(one))
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in TAPS:
                a, b = (x / (1e-8 + x.square().sum(1, keepdim=True)).sqrt()).chunk(2)
                weighted = nn.functional.conv2d((a - b).square(), self.heads[TAPS.index(number)])
                distance += weighted.mean((1, 2, 3))
        return distance


def alexnet_features() -> nn.Sequential:
    """Return AlexNet (Krizhevsky 2014) up to its last ReLU, with torchvision's numbering of the layers."""
    widths = (3, 64, 192, 384, 256, 256)
    kernels: tuple[dict[str, Any], ...] = (
        {"kernel_size": 11, "stride": 4, "padding": 2},
        {"kernel_size": 5, "padding": 2},
        *({"kernel_size": 3, "padding": 1},) * 3,
    )
    layers: list[nn.Module] = []
    for number, kernel in enumerate(kernels):
        layers += [nn.Conv2d(widths[number], widths[number + 1], **kernel), nn.ReLU()]
        if number < 2:
            layers.append(nn.MaxPool2d(3, 2))
    return nn.Sequential(*layers)


def _tensor(frames: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 255
