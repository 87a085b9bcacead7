"""Dense motion from thin-plate splines, with multi-resolution occlusion maps (Zhao and Zhang 2022, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    AntiAliasDownsample,
    Hourglass,
    Motion,
    UpBlock,
    deform_by_parts,
    full_precision,
    identity_grid,
    keypoint_heatmaps,
    single,
)
from fommctl_tpsmm.splines import POINTS, Splines

NORM = partial(nn.InstanceNorm2d, affine=True)
"""Normalisation in all blocks of motion and inpainting network."""


@dataclass(frozen=True, slots=True)
class TpsMotion:
    """The dense motion, at the resolution (h, w) of the motion network."""

    deformation: Tensor
    """(B, h, w, 2): position in the source of each position of the driving frame, in [-1, 1]."""
    contributions: Tensor
    """(B, K + 1, h, w): weights of the warps, the background's first, which sum to 1."""
    warps: Tensor
    """(B, K + 1, h, w, 2): the background's warp, then the splines."""
    deformed: Tensor
    """(B, K + 1, C, h, w): the source under each warp alone."""
    occlusions: tuple[Tensor, ...]
    """(B, 1, h', w') in [0, 1], coarse to fine: 0 for positions that the source does not show. One for all levels of
    the inpainting network, or one each."""


def grouped(keypoints: Tensor) -> Tensor:
    """Group keypoints (B, K * 5, 2) into the control points (B, K, 5, 2) of K splines."""
    return keypoints.view(len(keypoints), -1, POINTS, 2)


def warps_between(source: Motion, driving: Motion, height: int, width: int, background: Tensor | None) -> Tensor:
    """Return sampling grids (B, K + 1, h, w, 2) of the source: the background's, then each spline's.

    background: (B, 3, 3), from `BackgroundPredictor`; None for a static background.
    """
    grid = identity_grid(height, width, like=driving.keypoints)
    splines = Splines.between(grouped(driving.keypoints), grouped(source.keypoints))
    moved = splines.warp(grid.view(-1, 2)).view(*splines.controls.shape[:2], height, width, 2)
    if background is None:
        still = grid.expand(len(moved), 1, -1, -1, -1)
    else:
        still = (grid @ background[:, None, :2, :2].mT + background[:, None, None, :2, 2])[:, None]
    return torch.cat((still, moved), 1)


def motion_inputs(
    small: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the motion network's inputs for a source (B, C, h, w), and the warps of `warps_between`.

    The inputs are heatmaps (B, 5 K + 1, h, w), zero for the background, and the source under each warp (B, K + 1, C, h,
    w).
    """
    height, width = small.shape[2:]
    with full_precision(small):
        warps = warps_between(source, driving, height, width, background)
        heatmaps = keypoint_heatmaps(source, driving, height, width)
        return heatmaps, deform_by_parts(single(small), warps, align_corners=True), warps


def kept_softmax(logits: Tensor, kept: Tensor) -> Tensor:
    """Return the softmax of logits (B, P, h, w) over the parts selected by `kept` (B, P), bool; 0 for the others."""
    exponentials = (logits - logits.amax(1, keepdim=True)).exp() * kept[:, :, None, None]
    return exponentials / (exponentials.sum(1, keepdim=True) + 1e-6)


class DenseMotionNetwork(nn.Module):
    """Combines the splines to one flow, and estimates occlusion maps."""

    down: AntiAliasDownsample | None

    def __init__(
        self,
        *,
        num_tps: int,
        num_channels: int,
        multi_mask: bool,
        levels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        scale_factor: float,
    ) -> None:
        """levels: number of resolutions of the inpainting network.  multi_mask: estimate an occlusion map for each, not
        one for all."""
        super().__init__()
        inputs = (num_tps + 1) * num_channels + num_tps * POINTS + 1
        self.hourglass = Hourglass(block_expansion, inputs, num_blocks, max_features, norm=NORM)
        widths = self.hourglass.decoder.widths
        self.maps = nn.Conv2d(widths[-1], num_tps + 1, 7, padding=3)
        self.down = AntiAliasDownsample(num_channels, scale_factor) if scale_factor != 1 else None
        step = round(1 / scale_factor)
        self.up = nn.ModuleList()
        self.from_decoder = 1
        """Number of occlusion maps computed from the decoder's last levels; the others are computed from `up`."""
        used = widths[-1:]
        if multi_mask:
            finer = [widths[-1] >> level for level in range(step.bit_length())]
            self.up = nn.ModuleList(UpBlock(*pair, norm=NORM) for pair in pairwise(finer))
            self.from_decoder = levels - len(self.up)
            used = [*widths[-self.from_decoder :], *finer[1:]]
        self.occlusion = nn.ModuleList(nn.Conv2d(width, 1, 7, padding=3) for width in used)

    def forward(
        self,
        source: Tensor,
        source_motion: Motion,
        driving_motion: Motion,
        background: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> TpsMotion:
        """Estimate the dense motion between source and driving frames.

        source: (B, C, H, W) in [0, 1].  background: see `warps_between`.  kept: see `kept_softmax`; None for all.
        """
        small = source if self.down is None else self.down(source)
        heatmaps, deformed, warps = motion_inputs(small, source_motion, driving_motion, background)
        levels = self.hourglass.levels(torch.cat((heatmaps, deformed.flatten(1, 2)), 1))
        logits = single(self.maps(levels[-1]))
        contributions = logits.softmax(1) if kept is None else kept_softmax(logits, kept)
        with full_precision(source):
            deformation = torch.einsum("bphw,bphwc->bhwc", contributions, warps)
        return TpsMotion(deformation, contributions, warps, deformed, self._occlusions(levels))

    def _occlusions(self, levels: list[Tensor]) -> tuple[Tensor, ...]:
        features = levels[-self.from_decoder :]
        for block in self.up:
            features.append(block(features[-1]))
        pairs = zip(self.occlusion, features, strict=True)
        return tuple(torch.sigmoid(single(conv(each))) for conv, each in pairs)
