"""Keypoints and the shapes of their heatmaps, learned without labels (Monkey-Net, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    Hourglass,
    Motion,
    NearestDownsample,
    full_precision,
    identity_grid,
    single,
    soft_argmax,
)

FLOOR = 1e-7
"""Added to heatmaps before their covariances are taken, as published."""


def covariances(heatmaps: Tensor, keypoints: Tensor) -> Tensor:
    """(B, K, 2, 2) of heatmaps (B, K, H, W), each of which sums to 1, around their means (B, K, 2)."""
    grid = identity_grid(heatmaps.shape[2], heatmaps.shape[3], like=heatmaps)
    offsets = (grid - keypoints[:, :, None, None]).flatten(2, 3)
    weighted = (heatmaps.flatten(2) + FLOOR)[..., None] * offsets
    return weighted.transpose(2, 3) @ offsets


def at_least(matrices: Tensor, extent: float) -> Tensor:
    """Covariances (B, K, 2, 2), scaled up where their smaller eigenvalue (which is a variance) is below `extent`."""
    a, b, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]
    # The square of the difference of the eigenvalues; above zero, so that its root has a gradient for a round heatmap.
    spread = ((a - d).square() + 4 * b.square()).clamp_min(1e-20).sqrt()
    smaller = ((a + d - spread) / 2).clamp_min(1e-12)
    return matrices * (smaller.clamp_min(extent) / smaller)[..., None, None]


def motion_from_maps(
    logits: Tensor, temperature: float, kp_variance: str | float, clip_variance: float | None
) -> Motion:
    """Keypoints by soft-argmax, and the covariances of their heatmaps; logits: (B, K, h, w) float32.

    See `MonkeyKeypointDetector` for the others.
    """
    keypoints, heatmaps = soft_argmax(logits, temperature)
    if not isinstance(kp_variance, str):
        return Motion(keypoints)
    found = covariances(heatmaps, keypoints)
    if kp_variance == "single":
        mean = found.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        found = mean * torch.eye(2, device=found.device)
    elif clip_variance is not None:
        found = at_least(found, clip_variance)
    return Motion(keypoints, covariances=found)


class MonkeyKeypointDetector(nn.Module):
    """Frames (B, C, H, W) in [0, 1] to K keypoints with covariances.

    kp_variance: `matrix`: a covariance matrix each; `single`: one variance each; a number: none are estimated.
    """

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        kp_variance: str | float,
        temperature: float,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        scale_factor: float = 1.0,
        clip_variance: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.kp_variance = kp_variance
        self.clip_variance = clip_variance
        self.predictor = Hourglass(block_expansion, num_channels, num_blocks, max_features, outputs=num_kp)
        self.down = NearestDownsample(scale_factor)

    def forward(self, frames: Tensor) -> Motion:
        logits = single(self.predictor(self.down(frames)))
        with full_precision(frames):
            return motion_from_maps(logits, self.temperature, self.kp_variance, self.clip_variance)
