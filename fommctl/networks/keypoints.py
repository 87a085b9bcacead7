"""Keypoints and local affine maps, learned without labels (Siarohin et al. 2019, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fommctl.networks.grids import identity_grid
from fommctl.networks.layers import AntiAliasDownsample, Hourglass, full_precision, single
from fommctl.networks.motion import Motion


def soft_argmax(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the expected position of each keypoint under a softmax over its map.

    logits: (B, K, H, W).  temperature: divides the logits; 0.1 in the published models.
    Returns keypoints (B, K, 2) in [-1, 1] and heatmaps (B, K, H, W), each of which sums to 1.
    """
    heatmaps = (logits.flatten(2) / temperature).softmax(-1).view(logits.shape)
    grid = identity_grid(logits.shape[2], logits.shape[3], like=logits)
    return torch.einsum("bkhw,hwc->bkc", heatmaps, grid), heatmaps


class KeypointDetector(nn.Module):
    """Frames (B, C, H, W) in [0, 1] to K keypoints with 2x2 Jacobians.

    pad: padding of the 7x7 heads; 0 in the published weights, whose maps are 6 pixels smaller than the features
    but still span [-1, 1].  single_jacobian_map: one Jacobian map for all keypoints instead of one each.
    estimate_jacobian: False leaves a zeroth-order model.
    """

    down: AntiAliasDownsample | None

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        temperature: float,
        estimate_jacobian: bool = True,
        single_jacobian_map: bool = False,
        scale_factor: float = 1.0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.predictor = Hourglass(block_expansion, num_channels, num_blocks, max_features)
        self.kp = nn.Conv2d(self.predictor.out_filters, num_kp, 7, padding=pad)
        self.jacobian: nn.Conv2d | None = None
        if estimate_jacobian:
            maps = 1 if single_jacobian_map else num_kp
            self.jacobian = nn.Conv2d(self.predictor.out_filters, 4 * maps, 7, padding=pad)
            nn.init.zeros_(self.jacobian.weight)
            with torch.no_grad():
                self.jacobian.bias.copy_(torch.eye(2).flatten().repeat(maps))  # type: ignore[union-attr]
        self.down = AntiAliasDownsample(num_channels, scale_factor) if scale_factor != 1 else None

    def forward(self, frames: Tensor) -> Motion:
        features = self.predictor(frames if self.down is None else self.down(frames))
        logits = self.kp(features)
        jacobian_maps = None if self.jacobian is None else single(self.jacobian(features))
        with full_precision(frames):
            return motion_from_maps(single(logits), jacobian_maps, self.temperature)


def motion_from_maps(logits: Tensor, jacobian_maps: Tensor | None, temperature: float) -> Motion:
    """Detect keypoints by soft-argmax, Jacobians as the average of their maps under the keypoints' heatmaps.

    logits: (B, K, H, W).  jacobian_maps: (B, 4 K or 4, H, W), rows of the matrices first; None for zeroth order.
    """
    keypoints, heatmaps = soft_argmax(logits, temperature)
    if jacobian_maps is None:
        return Motion(keypoints)
    batch, count, height, width = logits.shape
    per_keypoint = jacobian_maps.view(batch, -1, 4, height, width).expand(-1, count, -1, -1, -1)
    # Not by einsum: gradients are rounded as in the published training (see sparse_motions).
    jacobians = (heatmaps[:, :, None] * per_keypoint).flatten(3).sum(-1)
    return Motion(keypoints, jacobians.view(batch, count, 2, 2))
