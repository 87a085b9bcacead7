"""Dense motion from sparse local affine motions (Siarohin et al. 2019, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.networks.grids import gaussians, identity_grid, sample
from fommctl.networks.layers import AntiAliasDownsample, Hourglass, full_precision, heads, single
from fommctl.networks.motion import Motion


@dataclass(frozen=True, slots=True)
class DenseMotion:
    """Motion of each place, at the resolution (h, w) of the motion network."""

    deformation: Tensor
    """(B, h, w, 2): where in the source each place of the driving frame comes from."""
    mask: Tensor
    """(B, K + 1, h, w): which part each place belongs to, background first; sums to 1."""
    sparse_deformed: Tensor
    """(B, K + 1, C, h, w): the source moved by each part's motion alone."""
    occlusion: Tensor | None
    """(B, 1, h, w) in [0, 1]: 0 where the source does not show what is needed."""


def sparse_motions(source: Motion, driving: Motion, height: int, width: int) -> Tensor:
    """Return the motion of each part near its keypoint, to first order (equation 4), the background standing still.

    source, driving: of B frames each (source may hold one).  Returns sampling grids (B, K + 1, H, W, 2):
    J_source J_driving^-1 (z - p_driving) + p_source.
    """
    grid = identity_grid(height, width, like=driving.keypoints)
    batch, count = driving.keypoints.shape[:2]
    offsets = grid - driving.keypoints[:, :, None, None]
    if driving.jacobians is not None and source.jacobians is not None:
        # By elimination, as published: in closed form the same gradients are rounded otherwise, and where one is nearly
        # zero Adam turns that into a full step the other way.  inv_ex makes a GPU wait for no error.
        maps = source.jacobians @ torch.linalg.inv_ex(driving.jacobians).inverse
        offsets = torch.einsum("bkij,bkhwj->bkhwi", maps, offsets)
    moved = offsets + source.keypoints[:, :, None, None]
    background = grid.expand(batch, 1, height, width, 2)
    return torch.cat((background, moved.expand(batch, count, -1, -1, -1)), 1)


def keypoint_heatmaps(source: Motion, driving: Motion, height: int, width: int) -> Tensor:
    """Return the difference of the Gaussians around driving and source keypoints, with an empty one for the background
    first.

    Returns (B, K + 1, H, W) in [-1, 1] (equation 6).
    """
    difference = gaussians(driving.keypoints, height, width) - gaussians(source.keypoints, height, width)
    return torch.cat((torch.zeros_like(difference[:, :1]), difference), 1)


def deform_by_parts(source: Tensor, motions: Tensor, *, align_corners: bool) -> Tensor:
    """Sample the source (B, C, h, w) at each of the grids (B, P, h, w, 2) of P parts: (B, P, C, h, w).

    One call: the grids are laid end to end along the height, so that the source is not repeated.
    """
    batch, parts, height, width, _ = motions.shape
    grids = motions.reshape(batch, parts * height, width, 2)
    flat = sample(source, grids, align_corners=align_corners)
    return flat.view(batch, -1, parts, height, width).transpose(1, 2)


class DenseMotionNetwork(nn.Module):
    """Weighs the parts' motions into one flow, and tells what the source hides."""

    down: AntiAliasDownsample | None

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        scale_factor: float = 1.0,
        estimate_occlusion_map: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.hourglass = Hourglass(block_expansion, (num_kp + 1) * (num_channels + 1), num_blocks, max_features)
        self.mask = nn.Conv2d(self.hourglass.out_filters, num_kp + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_filters, 1, 7, padding=3) if estimate_occlusion_map else None
        self.down = AntiAliasDownsample(num_channels, scale_factor) if scale_factor != 1 else None

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> DenseMotion:
        """Estimate the dense motion.  source: (B, C, H, W) in [0, 1]."""
        small = source if self.down is None else self.down(source)
        height, width = small.shape[2:]
        with full_precision(source):
            motions = sparse_motions(source_motion, driving_motion, height, width)
            heatmaps = keypoint_heatmaps(source_motion, driving_motion, height, width)
            deformed = deform_by_parts(single(small), motions, align_corners=self.align_corners)
        # The published networks expect each part's heatmap in front of its three colour channels.
        features = self.hourglass(torch.cat((heatmaps[:, :, None], deformed), 2).flatten(1, 2))
        if self.occlusion is None:
            logits, hidden = self.mask(features), None
        else:
            logits, hidden = heads(features, self.mask, self.occlusion)
        mask = single(logits).softmax(1)
        with full_precision(source):
            deformation = torch.einsum("bkhw,bkhwc->bhwc", mask, motions)
        occlusion = None if hidden is None else torch.sigmoid(single(hidden))
        return DenseMotion(deformation, mask, deformed, occlusion)
