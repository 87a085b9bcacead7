"""How networks are shown keypoints: heatmaps, ways between keypoints, shifted sources (Monkey-Net, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fommctl.api.blocks import Motion, deform_by_parts, gaussians, identity_grid, inverse, sparse_motions

if TYPE_CHECKING:
    from fommctl_monkeynet.schema import CommonParams, KeypointEmbeddingParams

SMALLEST_SUM = 1e-12
"""A heatmap whose keypoint is far outside the frame has no sum to divide by."""


def heatmaps(motion: Motion, height: int, width: int, variance: float | None) -> Tensor:
    """Gaussians (B, K, H, W) in (0, 1] around keypoints: exp(-d' covariance^-1 d / 2), d the way to the keypoint.

    variance: one for all keypoints; None for the covariances of `motion`.
    """
    if variance is not None:
        return gaussians(motion.keypoints, height, width, variance)
    assert motion.covariances is not None
    xx, xy, yx, yy = inverse(motion.covariances).flatten(2)[..., None, None].unbind(2)
    offsets = identity_grid(height, width, like=motion.keypoints) - motion.keypoints[:, :, None, None]
    x, y = offsets.unbind(-1)
    return torch.exp(-0.5 * (xx * x * x + (xy + yx) * x * y + yy * y * y))


@dataclass(frozen=True, slots=True)
class EmbeddedSource:
    """What an embedding needs of the source."""

    frames: Tensor
    """(B, C, h, w): the source at the resolution of the embedding."""
    motion: Motion
    heatmaps: Tensor | None
    """(B, K, h, w), divided; None where the embedding does not use them."""


class KeypointEmbedding:
    """Keypoints of source and driving frame as channels: for each part its heatmap, way and shifted source.

    background: a part that stands still comes first.
    """

    def __init__(self, params: KeypointEmbeddingParams, common: CommonParams, *, background: bool) -> None:
        self._params = params
        self._align_corners = common.align_corners
        self._variance = common.kp_variance if isinstance(common.kp_variance, (int, float)) else None
        self.parts = common.num_kp + background
        self._background = background
        shifted = common.num_channels * params.use_deformed_source_image
        self.channels = self.parts * (params.use_heatmap + 2 * params.use_difference + shifted)

    def of_source(self, frames: Tensor, motion: Motion) -> EmbeddedSource:
        """frames: (B, C, h, w) at the resolution of the embedding; motion: theirs."""
        used = self._params.use_heatmap and self._params.heatmap_type == "difference"
        return EmbeddedSource(frames, motion, self._heatmaps(motion, frames) if used else None)

    def __call__(self, source: EmbeddedSource, driving: Motion) -> Tensor:
        """Channels (B, C, h, w); source may hold one frame for all driving ones."""
        batch, (height, width) = len(driving), source.frames.shape[2:]
        first = 0 if self._background else 1
        channels = []
        if self._params.use_heatmap:
            found = self._heatmaps(driving, source.frames)
            if source.heatmaps is not None:
                found = found - source.heatmaps
            if self._background:
                found = torch.cat((torch.zeros_like(found[:, :1]), found), 1)
            channels.append(found[:, :, None])
        if self._params.use_difference:
            ways = source.motion.keypoints - driving.keypoints
            if self._background:
                ways = torch.cat((torch.zeros_like(ways[:, :1]), ways), 1)
            channels.append(ways[..., None, None].expand(-1, -1, -1, height, width))
        if self._params.use_deformed_source_image:
            grids = sparse_motions(Motion(source.motion.keypoints), Motion(driving.keypoints), height, width)
            frames = source.frames.expand(batch, -1, -1, -1)
            channels.append(deform_by_parts(frames, grids[:, first:], align_corners=self._align_corners))
        return torch.cat(channels, 2).flatten(1, 2)

    def _heatmaps(self, motion: Motion, frames: Tensor) -> Tensor:
        found = heatmaps(motion, frames.shape[2], frames.shape[3], self._variance)
        if isinstance(self._params.norm_const, str):
            return found / found.sum((2, 3), keepdim=True).clamp_min(SMALLEST_SUM)
        return found / self._params.norm_const
