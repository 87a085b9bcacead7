"""The occlusion-aware generator (Siarohin et al. 2019, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.networks.dense_motion import DenseMotion, DenseMotionNetwork
from fommctl.networks.grids import between_borders, resize_grid, resize_map, sample
from fommctl.networks.layers import DownBlock, ResidualBlock, SameBlock, UpBlock, heads, single, width_at
from fommctl.networks.motion import Motion


@dataclass(frozen=True, slots=True)
class Generated:
    """A prediction and what led to it."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source itself, warped by the flow."""
    motion: DenseMotion


class Generator(nn.Module):
    """Warps the source's features along the dense motion, dims what is hidden, and paints the frame.

    blend_source: a further head tells where the warped source itself is the frame: its pixels are taken there. Ours,
    after the last skip of Siarohin et al. 2021 (Motion Representations for Articulated Animation): a small network
    cannot carry fine detail through its bottleneck.
    """

    def __init__(
        self,
        dense_motion_network: DenseMotionNetwork,
        *,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_down_blocks: int,
        num_bottleneck_blocks: int,
        align_corners: bool = True,
        blend_source: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.num_channels = num_channels
        self.dense_motion_network = dense_motion_network
        widths = [width_at(block_expansion, level, max_features) for level in range(num_down_blocks + 1)]
        self.first = SameBlock(num_channels, widths[0], kernel=7)
        self.down_blocks = nn.ModuleList(map(DownBlock, widths[:-1], widths[1:]))
        self.up_blocks = nn.ModuleList(map(UpBlock, widths[:0:-1], widths[-2::-1]))
        self.bottleneck = nn.Sequential()
        for index in range(num_bottleneck_blocks):
            self.bottleneck.add_module(f"r{index}", ResidualBlock(widths[-1]))
        self.final = nn.Conv2d(widths[0], num_channels, 7, padding=3)
        self.blend = nn.Conv2d(widths[0], 1, 7, padding=3) if blend_source else None

    def encode(self, source: Tensor) -> Tensor:
        """Return the features (B, F, H / 2^n, W / 2^n) of source (B, C, H, W); they do not depend on the driving
        frame."""
        features: Tensor = self.first(source)
        for block in self.down_blocks:
            features = block(features)
        return features

    def decode(self, features: Tensor, motion: DenseMotion, kept: Tensor) -> Tensor:
        """Return the frame (B, C, H, W) painted from the source's features under a motion; kept: the warped source, of
        which a part may be taken as it is."""
        height, width = features.shape[2:]
        out = self.warp(features, motion.deformation)
        if motion.occlusion is not None:
            out = out * resize_map(motion.occlusion, height, width)
        out = self.bottleneck(out)
        for block in self.up_blocks:
            out = block(out)
        if self.blend is None:
            return torch.sigmoid(single(self.final(out)))
        painted, blend = (torch.sigmoid(single(each)) for each in heads(out, self.final, self.blend))
        return torch.lerp(painted, kept, blend)

    def warp(self, values: Tensor, deformation: Tensor) -> Tensor:
        """Warp values (B, C, H, W) along a flow of any resolution."""
        return sample(values, resize_grid(deformation, *values.shape[2:]), align_corners=self.align_corners)

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> Generated:
        motion = self.dense_motion_network(source, source_motion, driving_motion)
        deformed = self.warp(source, motion.deformation)
        kept = deformed if self.blend is None else self.warp(source, inside(motion.deformation))
        return Generated(self.decode(self.encode(source), motion, kept), deformed, motion)

    def flow_of(self, generated: Generated) -> Tensor:
        """Return the flow (B, h, w, 2) of `fommctl.api.FlowRenderer`: that of the source's pixels where they are
        blended in, else that of its features, which were moved at their own size."""
        smaller = 0 if self.blend is not None else len(self.down_blocks)
        height, width = (side >> smaller for side in generated.prediction.shape[2:])
        return between_borders(generated.motion.deformation, (height, width), align_corners=self.align_corners)


def inside(deformation: Tensor) -> Tensor:
    """Return a flow (B, h, w, 2) whose points outside the source are brought to its border: no black is taken from
    there."""
    return deformation.clamp(-1, 1)
