"""The motion network M: ConvNeXt V2 (Woo et al. 2023) with a head for each parameter of the motion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6
BINS = 66
"""Number of classes of an angle, three degrees each."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of maps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, EPSILON)
        return out.permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation of maps (B, H, W, C): channels compete by their norms over space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        shares = norms / (norms.mean(-1, keepdim=True) + EPSILON)
        out: Tensor = self.gamma * (x * shares) + self.beta + x
        return out


class Block(nn.Module):
    """A residual block of a depthwise 7x7 convolution and two linear layers over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.pwconv2(self.grn(F.gelu(self.pwconv1(out))))
        total: Tensor = x + out.permute(0, 3, 1, 2)
        return total


class ConvNext(nn.Module):
    """ConvNeXt V2 from frames (B, 3, H, W) in [0, 1] to the outputs of its heads, (B, n) by name."""

    def __init__(self, *, num_kp: int, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0]))])
        for inputs, outputs in pairwise(widths):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], EPSILON)
        sizes = {"kp": 3 * num_kp, "scale": 1, "pitch": BINS, "yaw": BINS, "roll": BINS, "t": 3, "exp": 3 * num_kp}
        self._heads = tuple(sizes)
        for name, size in sizes.items():
            self.add_module(f"fc_{name}", nn.Linear(widths[-1], size))

    def features(self, frames: Tensor) -> Tensor:
        """Return the inputs of the heads, (B, C)."""
        x = frames
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        features: Tensor = self.norm(x.mean((2, 3)))
        return features

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        features = self.features(frames)
        return {name: getattr(self, f"fc_{name}")(features) for name in self._heads}


class MotionExtractor(nn.Module):
    """`ConvNext` under the name that it has in the published file."""

    def __init__(self, **size: Any) -> None:
        super().__init__()
        self.detector = ConvNext(**size)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.detector(frames)
        return found


def degrees(logits: Tensor) -> Tensor:
    """Return the expected angles (B,), in degrees, of logits (B, 66)."""
    places = torch.arange(BINS, device=logits.device, dtype=logits.dtype)
    return 3 * (logits.softmax(1) * places).sum(1) - 97.5
