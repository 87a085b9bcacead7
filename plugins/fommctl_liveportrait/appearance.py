"""The appearance network F (Guo et al. 2024, section 3.1), which turns a picture into a volume of features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api.blocks import width_at
from fommctl_liveportrait.layers import Block2d, DownBlock2d


class ResidualBlock3d(nn.Module):
    """A pre-activation residual block for volumes."""

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
    """Extracts volumes (B, reshape_channel, reshape_depth, h, w) from frames (B, 3, H, W) in [0, 1], with h = H /
    2^num_down_blocks."""

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
        widths = [width_at(block_expansion, level, max_features) for level in range(num_down_blocks + 1)]
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
