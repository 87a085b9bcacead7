"""The generator G (SPADE, Park et al. 2019), which decodes the warped features to a frame.

Spectral norm is a constant factor at inference, so it is folded into the weights when a published file is read.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api.blocks import width_at

MIDDLE_BLOCKS = 6


class Spade(nn.Module):
    """Instance norm with a scale and shift that depend on the position, predicted from `labels`."""

    def __init__(self, channels: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        shared = self.mlp_shared(F.interpolate(labels, x.shape[2:]))
        out: Tensor = F.instance_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)
        return out


class SpadeBlock(nn.Module):
    """A residual block of two convolutions, each after SPADE; the shortcut has one too if the widths differ."""

    def __init__(self, inputs: int, outputs: int, labels: int, hidden: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.norm_0 = Spade(inputs, labels, hidden)
        self.norm_1 = Spade(middle, labels, hidden)
        self.conv_s: nn.Conv2d | None = None
        if inputs != outputs:
            self.conv_s = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.norm_s = Spade(inputs, labels, hidden)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        shortcut = x if self.conv_s is None else self.conv_s(self.norm_s(x, labels))
        out = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        out = self.conv_1(F.leaky_relu(self.norm_1(out, labels), 0.2))
        total: Tensor = shortcut + out
        return total


class SpadeGenerator(nn.Module):
    """Decodes features (B, C, h, w) to frames (B, 3, 4 upscale h, 4 upscale w) in [0, 1]."""

    def __init__(
        self, *, upscale: int, block_expansion: int, max_features: int, num_down_blocks: int, hidden: int
    ) -> None:
        super().__init__()
        labels = width_at(block_expansion, num_down_blocks, max_features)
        self.fc = nn.Conv2d(labels, 2 * labels, 3, padding=1)
        for number in range(MIDDLE_BLOCKS):
            self.add_module(f"G_middle_{number}", SpadeBlock(2 * labels, 2 * labels, labels, hidden))
        self.up_0 = SpadeBlock(2 * labels, labels, labels, hidden)
        self.up_1 = SpadeBlock(labels, block_expansion, labels, hidden)
        self.conv_img = nn.Sequential(
            nn.Conv2d(block_expansion, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )

    @property
    def middle(self) -> list[SpadeBlock]:
        """The blocks at the features' resolution."""
        return [getattr(self, f"G_middle_{number}") for number in range(MIDDLE_BLOCKS)]

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for block in self.middle:
            x = block(x, features)
        x = self.up_0(F.interpolate(x, scale_factor=2), features)
        x = self.up_1(F.interpolate(x, scale_factor=2), features)
        frames: Tensor = self.conv_img(F.leaky_relu(x, 0.2)).sigmoid()
        return frames
