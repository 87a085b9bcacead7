"""The appearance network F: a picture as a volume of features, channels x depth x height x width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fommctl_liveportrait.layers import Block2d, DownBlock2d


class ResidualBlock3d(nn.Module):
    """Pre-activation residual block of a volume."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        total: Tensor = x + self.conv2(F.relu(self.norm2(out)))
        return total


class AppearanceExtractor(nn.Module):
    """Frames (B, C, H, W) to volumes (B, channels, depth, h, w)."""

    def __init__(
        self,
        *,
        image_channel: int,
        block_expansion: int,
        num_down_blocks: int,
        max_features: int,
        reshape_channel: int,
        reshape_depth: int,
        num_resblocks: int,
    ) -> None:
        super().__init__()
        widths = [min(max_features, block_expansion << level) for level in range(num_down_blocks + 1)]
        self.first = Block2d(image_channel, widths[0])
        self.down_blocks = nn.ModuleList(map(DownBlock2d, widths[:-1], widths[1:]))
        self.second = nn.Conv2d(widths[-1], reshape_channel * reshape_depth, 1)
        self.resblocks_3d = nn.Sequential()
        for number in range(num_resblocks):
            self.resblocks_3d.add_module(f"3dr{number}", ResidualBlock3d(reshape_channel))
        self._shape = reshape_channel, reshape_depth

    def forward(self, frames: Tensor) -> Tensor:
        x = self.first(frames)
        for block in self.down_blocks:
            x = block(x)
        x = self.second(x)
        volume: Tensor = self.resblocks_3d(x.view(len(x), *self._shape, *x.shape[2:]))
        return volume
