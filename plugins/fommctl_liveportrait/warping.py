"""The warping network W (Guo et al. 2024, section 3.1): estimates a dense 3D motion and warps the source's volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api.blocks import width_at
from fommctl_liveportrait.layers import Block2d, Hourglass3d, identity_volume, sample_volume

VARIANCE = 0.01
"""Variance of the Gaussians around keypoints."""


@dataclass(frozen=True, slots=True)
class Warped:
    """The result of the warping network."""

    features: Tensor
    """(B, C, h, w): inputs of the generator."""
    deformation: Tensor
    """(B, d, h, w, 3): position in the source's volume of each position, in [-1, 1], x before y before z."""
    occlusion: Tensor
    """(B, 1, h, w) in [0, 1]: 0 for positions that the source does not show."""


def flows(source: Tensor, driving: Tensor, grid: Tensor) -> Tensor:
    """Return the sampling grids (B, K + 1, d, h, w, 3) of the parts: the static one, then a shift for each keypoint.

    source: keypoints (B or 1, K, 3).  driving: keypoints (B, K, 3).  grid: the identity (d, h, w, 3).
    """
    moved = (grid - driving[:, :, None, None, None]) + source[:, :, None, None, None]
    return torch.cat((grid.expand(len(moved), 1, *grid.shape), moved), 1)


def heatmaps(keypoints: Tensor, grid: Tensor) -> Tensor:
    """Return Gaussians (B, K, d, h, w) in (0, 1] around keypoints (B, K, 3) on an identity grid (d, h, w, 3)."""
    z, y, x = grid[:, 0, 0, 2], grid[0, :, 0, 1], grid[0, 0, :, 0]
    alongs = [torch.exp(-0.5 * (line - keypoints[..., axis, None]) ** 2 / VARIANCE)
              for axis, line in enumerate((x, y, z))]  # fmt: skip
    along_x, along_y, along_z = alongs
    return along_z[..., :, None, None] * along_y[..., None, :, None] * along_x[..., None, None, :]


class DenseMotionNetwork(nn.Module):
    """Combines the parts' motions to one deformation, and estimates the occlusion."""

    def __init__(
        self,
        *,
        num_kp: int,
        feature_channel: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        reshape_depth: int,
        compress: int,
    ) -> None:
        super().__init__()
        self.compress = nn.Conv3d(feature_channel, compress, 1)
        self.norm = nn.BatchNorm3d(compress)
        self.hourglass = Hourglass3d(
            (num_kp + 1) * (compress + 1),
            block_expansion=block_expansion,
            max_features=max_features,
            num_blocks=num_blocks,
        )
        self.mask = nn.Conv3d(self.hourglass.out_channels, num_kp + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_channels * reshape_depth, 1, 7, padding=3)

    def compressed(self, volume: Tensor) -> Tensor:
        """Return the compressed features (B, c, d, h, w) of a volume (B, C, d, h, w), which the parts move."""
        return F.relu(self.norm(self.compress(volume)))

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor]:
        """Return deformation and occlusion (see `Warped`) for a volume (B, C, d, h, w) and keypoints (B, K, 3)."""
        batch, _, *sides = volume.shape
        grid = identity_volume(volume, *sides)
        moved = flows(source, driving, grid)
        parts = moved.shape[1]
        small = self.compressed(volume)
        repeated = small[:, None].expand(-1, parts, -1, -1, -1, -1).flatten(0, 1)
        deformed = sample_volume(repeated, moved.flatten(0, 1))
        deformed = deformed.view(batch, parts, *deformed.shape[1:])
        difference = F.pad(heatmaps(driving, grid) - heatmaps(source, grid), (0, 0, 0, 0, 0, 0, 1, 0))
        features = self.hourglass(torch.cat((difference[:, :, None], deformed), 2).flatten(1, 2))
        mask = self.mask(features).softmax(1)
        deformation = torch.einsum("bpdhw,bpdhwc->bdhwc", mask, moved)
        return deformation, self.occlusion(features.flatten(1, 2)).sigmoid()


class WarpingNetwork(nn.Module):
    """Warps a source's volume (B, C, d, h, w) from its keypoints (B, K, 3) to driving keypoints (B, K, 3)."""

    def __init__(
        self,
        *,
        num_kp: int,
        block_expansion: int,
        max_features: int,
        num_down_blocks: int,
        reshape_channel: int,
        dense_motion: dict[str, int],
    ) -> None:
        super().__init__()
        outputs = width_at(block_expansion, num_down_blocks, max_features)
        self.dense_motion_network = DenseMotionNetwork(num_kp=num_kp, feature_channel=reshape_channel, **dense_motion)
        self.third = Block2d(reshape_channel * dense_motion["reshape_depth"], outputs)
        self.fourth = nn.Conv2d(outputs, outputs, 1)

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> Warped:
        deformation, occlusion = self.dense_motion_network(volume, source, driving)
        warped = sample_volume(volume, deformation).flatten(1, 2)
        out = self.fourth(F.leaky_relu(self.third.norm(self.third.conv(warped)), 0.01))
        return Warped(out * occlusion, deformation, occlusion)
