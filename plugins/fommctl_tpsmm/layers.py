"""Blocks of the published networks, with instance normalisation. Attribute names are those of the published files."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def width_at(expansion: int, level: int, maximum: int) -> int:
    """Count the channels at a level of an encoder: doubled at each level up to a maximum."""
    return min(maximum, expansion << level)


class SameBlock(nn.Module):
    """Convolution, instance norm and ReLU at one resolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.InstanceNorm2d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock(SameBlock):
    """SameBlock, then 2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class UpBlock(SameBlock):
    """Nearest upsampling by 2, then SameBlock."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResidualBlock(nn.Module):
    """Pre-activation residual block."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(features, affine=True)
        self.norm2 = nn.InstanceNorm2d(features, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        return out + x


class Encoder(nn.Module):
    """Down blocks; returns the input and the output of every block."""

    def __init__(self, expansion: int, inputs: int, blocks: int, maximum: int) -> None:
        super().__init__()
        widths = [inputs, *(width_at(expansion, level, maximum) for level in range(1, blocks + 1))]
        self.down_blocks = nn.ModuleList(map(DownBlock, widths[:-1], widths[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for block in self.down_blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Decoder(nn.Module):
    """Up blocks with the encoder's outputs behind each; returns the result of every level, coarse first."""

    def __init__(self, expansion: int, inputs: int, blocks: int, maximum: int) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        deepest = width_at(expansion, blocks, maximum)
        self.widths = [deepest]
        """Channels of each result."""
        for level in reversed(range(blocks)):
            here = width_at(expansion, level, maximum)
            self.up_blocks.append(UpBlock(self.widths[-1], here))
            self.widths.append(here + (here if level else inputs))

    def forward(self, outputs: list[Tensor]) -> list[Tensor]:
        *skips, out = outputs
        levels = [out]
        for block in self.up_blocks:
            levels.append(torch.cat((block(levels[-1]), skips.pop()), 1))
        return levels


class Hourglass(nn.Module):
    """U-Net whose result is that of every level of its decoder, coarse first."""

    def __init__(self, expansion: int, inputs: int, blocks: int, maximum: int) -> None:
        super().__init__()
        self.encoder = Encoder(expansion, inputs, blocks, maximum)
        self.decoder = Decoder(expansion, inputs, blocks, maximum)

    @property
    def widths(self) -> list[int]:
        """Channels of each result."""
        return self.decoder.widths

    def forward(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.decoder(self.encoder(x))
        return levels
