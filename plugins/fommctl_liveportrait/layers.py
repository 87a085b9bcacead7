"""Blocks that the networks share, and sampling of volumes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block2d(nn.Module):
    """A convolution 3x3, BatchNorm and ReLU."""

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
    """A convolution 3x3x3, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock3d(Block3d):
    """A block that halves height and width; the depth stays."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool3d(super().forward(x), (1, 2, 2))


class UpBlock3d(Block3d):
    """A block behind nearest upsampling of height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=(1, 2, 2)))


class Encoder3d(nn.Module):
    """Down blocks; returns their input and all outputs."""

    def __init__(self, inputs: int, *, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        widths = [inputs, *(min(max_features, block_expansion << level) for level in range(1, num_blocks + 1))]
        self.down_blocks = nn.ModuleList(map(DownBlock3d, widths[:-1], widths[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for block in self.down_blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Decoder3d(nn.Module):
    """Up blocks, each beside the encoder's output of its size, and a last convolution, which FOMM does not have."""

    def __init__(self, inputs: int, *, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(num_blocks)):
            deeper = min(max_features, block_expansion << (level + 1))
            width = min(max_features, block_expansion << level)
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
    """Encoder and decoder of volumes."""

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
"""Kinds of devices on which torch samples volumes; elsewhere their corners are gathered."""


def sample_volume(values: Tensor, grid: Tensor) -> Tensor:
    """Return values (B, C, d, h, w) read at the places of grid (B, D, H, W, 3), x before y before z: (B, C, D, H, W).

    Zeros outside. The identity grid has the centres of the corner voxels at -1 and 1 and is read as if these were their
    outer borders, which shrinks what is read a little: the weights were trained so.
    """
    if values.device.type in SAMPLES_VOLUMES:
        return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return gather_volume(values, grid)


def gather_volume(values: Tensor, grid: Tensor) -> Tensor:
    """Sample as `sample_volume` does, by eight gathered corners."""
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
    """Return coordinates (D, H, W, 3) of the voxel centres, x before y before z, the corners at -1 and 1; in the type
    and on the device of `like`."""
    axes = [2 * (torch.arange(side, device=like.device, dtype=like.dtype) / (side - 1)) - 1
            for side in (depth, height, width)]  # fmt: skip
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), -1)


def reduced(frames: Tensor, step: int) -> Tensor:
    """Return frames (B, C, H, W), `step` times as large as the native ones, at the native size: means of squares."""
    return frames if step == 1 else F.avg_pool2d(frames, step)
