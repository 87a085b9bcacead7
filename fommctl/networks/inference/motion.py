"""The dense motion network, with what depends on the source alone taken out of the loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fommctl.networks.dense_motion import DenseMotionNetwork
from fommctl.networks.grids import KEYPOINT_VARIANCE, identity_grid, sample
from fommctl.networks.inference.convolutions import Numerics
from fommctl.networks.inference.detector import SeparableDownsample, downsample_at
from fommctl.networks.inference.folding import joined
from fommctl.networks.inference.networks import FastHourglass
from fommctl.networks.transfer import Motion, inverse


@dataclass(frozen=True, slots=True)
class MotionSource:
    """What the motion network needs of the source, at its own resolution (h, w)."""

    small: Tensor
    """(1, C, h, w): the source, downsampled."""
    still: Tensor
    """(1, h, w, C): the source under the background's motion, which is none."""
    heatmaps: Tensor
    """(1, h, w, K): Gaussians around the source's keypoints."""
    places: Tensor
    """(h w, 3): x, y, 1 of every pixel."""


def heatmaps_last(keypoints: Tensor, height: int, width: int) -> Tensor:
    """`gaussians` of keypoints (B, K, 2) with the keypoint as the last dimension: (B, H, W, K)."""
    x = torch.linspace(-1, 1, width, device=keypoints.device)[:, None]
    y = torch.linspace(-1, 1, height, device=keypoints.device)[:, None]
    along_x = torch.exp((x - keypoints[:, None, :, 0]) ** 2 / (-2 * KEYPOINT_VARIANCE))
    along_y = torch.exp((y - keypoints[:, None, :, 1]) ** 2 / (-2 * KEYPOINT_VARIANCE))
    return along_y[:, :, None] * along_x[:, None]


def affine_maps(source: Motion, driving: Motion) -> Tensor:
    """The parts' motions (equation 4) as matrices (B, K, 3, 2) that take a row (x, y, 1) to a place in the source."""
    batch, count = driving.keypoints.shape[:2]
    if driving.jacobians is None or source.jacobians is None:
        linear = torch.eye(2, device=driving.keypoints.device).expand(batch, count, 2, 2)
    else:
        linear = (source.jacobians @ inverse(driving.jacobians)).transpose(2, 3)
    offset = source.keypoints[:, :, None] - driving.keypoints[:, :, None] @ linear
    return torch.cat((linear, offset), 2)


class FastDenseMotion:
    """As `DenseMotionNetwork`; the hourglass input is ordered by kind, and the mask weighs affine maps, not grids."""

    def __init__(self, network: DenseMotionNetwork, numerics: Numerics, channels: int, scale: float) -> None:
        num_kp = network.mask.out_channels - 1
        self._down = SeparableDownsample(downsample_at(network.down, channels, scale), numerics.device)
        self._align_corners = network.align_corners
        self._numerics = numerics
        self._occludes = network.occlusion is not None
        # Published order: for each part, background first, its heatmap and its colours. Here: the heatmaps (but that
        # of the background, which is always zero), the moving parts colour by colour, the background's colours.
        parts = torch.arange(num_kp + 1)[:, None] * (channels + 1) + torch.arange(channels + 1)
        order = torch.cat((parts[1:, 0], parts[1:, 1:].t().flatten(), parts[0, 1:]))
        self._network = FastHourglass(network.hourglass, joined(network.mask, network.occlusion), 3, numerics, order)
        self._background = torch.tensor([[[[1.0, 0], [0, 1], [0, 0]]]], device=numerics.device)

    def encode_source(self, frame: Tensor, motion: Motion) -> MotionSource:
        """frame: (1, C, H, W) in [0, 1]; motion: its own."""
        small = self._down(frame).contiguous()
        height, width = small.shape[2:]
        grid = identity_grid(height, width, like=small)
        still = sample(small, grid[None], align_corners=self._align_corners)
        places = torch.cat((grid, torch.ones_like(grid[..., :1])), 2).view(-1, 3)
        return MotionSource(small, still.permute(0, 2, 3, 1), heatmaps_last(motion.keypoints, height, width), places)

    def __call__(self, source: MotionSource, source_motion: Motion, driving: Motion) -> tuple[Tensor, Tensor | None]:
        """The flow (B, h, w, 2) and, where the model estimates it, the occlusion (B, 1, h, w)."""
        height, width = source.small.shape[2:]
        batch = len(driving)
        maps = affine_maps(source_motion, driving)
        features = self._input(source, driving, maps)
        out = self._network(features).permute(0, 2, 3, 1).float()
        last = out.shape[3] - self._occludes
        mask = out[..., :last].softmax(3).flatten(1, 2)
        every = torch.cat((self._background.expand(batch, -1, -1, -1), maps), 1)
        blended = (mask @ every.flatten(2)).view(batch, -1, 3, 2)
        flow = (source.places[:, :, None] * blended).sum(2).view(batch, height, width, 2)
        return flow, out[..., last:].sigmoid().permute(0, 3, 1, 2) if self._occludes else None

    def _input(self, source: MotionSource, driving: Motion, maps: Tensor) -> Tensor:
        """The hourglass input (B, K + C K + C, h, w) in its own order."""
        height, width = source.small.shape[2:]
        batch, count = driving.keypoints.shape[:2]
        heatmaps = heatmaps_last(driving.keypoints, height, width) - source.heatmaps
        # All grids end to end along the height: one call, and the source is not repeated for every part.
        grids = (source.places @ maps).view(batch, count * height, width, 2)
        parts = sample(source.small.expand(batch, -1, -1, -1), grids, align_corners=self._align_corners)
        moved = parts.view(batch, -1, height, width).permute(0, 2, 3, 1)
        still = source.still.expand(batch, -1, -1, -1)
        return torch.cat((heatmaps, moved, still), 3).to(self._numerics.dtype).permute(0, 3, 1, 2)
