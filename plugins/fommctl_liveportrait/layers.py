"""Blocks shared by the networks, and sampling of volumes."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api.blocks import width_at


class Block2d(nn.Module):
    """A 3x3 convolution, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock2d(Block2d):
    """A block that halves height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class Block3d(nn.Module):
    """A 3x3x3 convolution, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock3d(Block3d):
    """A block that halves height and width and keeps the depth."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool3d(super().forward(x), (1, 2, 2))


class UpBlock3d(Block3d):
    """A block that doubles height and width by nearest upsampling first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=(1, 2, 2)))


class Encoder3d(nn.Module):
    """Down blocks for volumes; returns the input and the output of each."""

    def __init__(self, inputs: int, *, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        widths = [inputs, *(width_at(block_expansion, level, max_features) for level in range(1, num_blocks + 1))]
        self.down_blocks = nn.ModuleList(DownBlock3d(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for block in self.down_blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Decoder3d(nn.Module):
    """Up blocks for volumes with skip connections, and a last convolution that FOMM's decoder does not have."""

    def __init__(self, inputs: int, *, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(num_blocks)):
            deeper = width_at(block_expansion, level + 1, max_features)
            width = width_at(block_expansion, level, max_features)
            self.up_blocks.append(UpBlock3d(deeper * (1 if level == num_blocks - 1 else 2), width))
        self.out_channels = block_expansion + inputs
        self.conv = nn.Conv3d(self.out_channels, self.out_channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(self.out_channels)

    def forward(self, skips: list[Tensor]) -> Tensor:
        out = skips[-1]
        for block, skip in zip(self.up_blocks, reversed(skips[:-1]), strict=True):
            out = torch.cat((block(out), skip), 1)
        return F.relu(self.norm(self.conv(out)))


class Hourglass3d(nn.Module):
    """Encoder and decoder for volumes."""

    def __init__(self, inputs: int, *, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        size = {"block_expansion": block_expansion, "max_features": max_features, "num_blocks": num_blocks}
        self.encoder = Encoder3d(inputs, **size)
        self.decoder = Decoder3d(inputs, **size)
        self.out_channels = self.decoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


SAMPLES_VOLUMES = ("cpu", "cuda")
"""Types of devices on which torch can sample volumes; elsewhere `gather_volume` is used."""


def sample_volume(values: Tensor, grid: Tensor) -> Tensor:
    """Sample values (B, C, d, h, w) at a grid (B, D, H, W, 3), x before y before z: (B, C, D, H, W), zero outside.

    The identity grid has the centres of the corner voxels at -1 and 1, but is read as if their outer borders were
    there, which shrinks the result slightly; the weights were trained this way.
    """
    if values.device.type in SAMPLES_VOLUMES:
        return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return gather_volume(values, grid)


def gather_volume(values: Tensor, grid: Tensor) -> Tensor:
    """Sample as `sample_volume` does, by gathering the eight neighbours of each position."""
    batch, channels, *sides = values.shape
    flat = values.flatten(2)
    places = [((grid[..., axis] + 1) * side - 1) / 2 for axis, side in enumerate(reversed(sides))]
    lows = [place.floor() for place in places]
    out = values.new_zeros((batch, channels, grid[0, ..., 0].numel()))
    for corner in range(8):
        index, weight = torch.zeros_like(places[0], dtype=torch.long), torch.ones_like(places[0])
        for axis in (2, 1, 0):  # z, y, x: the slowest first
            side, step = sides[2 - axis], corner >> axis & 1
            at = lows[axis] + step
            share = places[axis] - lows[axis]
            weight = weight * (share if step else 1 - share) * ((at >= 0) & (at < side))
            index = index * side + at.clamp(0, side - 1).long()
        rows = index.flatten(1)[:, None].expand(-1, channels, -1)
        out = out + flat.gather(2, rows) * weight.flatten(1)[:, None]
    return out.view(batch, channels, *grid.shape[1:4])


def identity_volume(like: Tensor, depth: int, height: int, width: int) -> Tensor:
    """Return the coordinates (depth, height, width, 3) of voxel centres, x before y before z, with the corners at -1
    and 1; type and device are those of `like`."""
    axes = [2 * (torch.arange(side, device=like.device, dtype=like.dtype) / (side - 1)) - 1
            for side in (depth, height, width)]  # fmt: skip
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), -1)


def reduced(frames: Tensor, step: int) -> Tensor:
    """Reduce frames (B, C, H, W) by a whole factor, by averaging squares of `step` x `step` pixels."""
    return frames if step == 1 else F.avg_pool2d(frames, step)
