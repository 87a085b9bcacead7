"""The inpainting network (Zhao and Zhang 2022, section 3.4), which decodes the source's features, warped and masked at
every level."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    DownBlock,
    ResidualBlock,
    SameBlock,
    UpBlock,
    full_precision,
    resize_grid,
    resize_map,
    sample,
    single,
    width_at,
)
from fommctl_tpsmm.motion import NORM, TpsMotion


def warped(features: Tensor, deformation: Tensor) -> Tensor:
    """Sample features (B, C, H, W) at a deformation (B, h, w, 2) of any resolution: (B, C, H, W)."""
    with full_precision(features):
        grid = resize_grid(deformation, *features.shape[2:], align_corners=True)
        return sample(single(features), grid, align_corners=True)


@dataclass(frozen=True, slots=True)
class Generated:
    """A prediction and its intermediate results."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source, warped by the motion."""
    motion: TpsMotion
    features: tuple[Tensor, ...]
    """Features of the source, fine to coarse."""


class InpaintingNetwork(nn.Module):
    """Renders the source under a dense motion."""

    def __init__(
        self, *, num_channels: int, multi_mask: bool, block_expansion: int, max_features: int, num_down_blocks: int
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.multi_mask = multi_mask
        widths = [width_at(block_expansion, level, max_features) for level in range(num_down_blocks + 1)]
        self.first = SameBlock(num_channels, widths[0], kernel=7, norm=NORM)
        self.down_blocks = nn.ModuleList(DownBlock(*pair, norm=NORM) for pair in pairwise(widths))
        # Coarse to fine. Every level but the coarsest has the warped features as further inputs.
        inputs = [width * (1 if level == num_down_blocks else 2) for level, width in enumerate(widths)][:0:-1]
        self.up_blocks = nn.ModuleList(UpBlock(*pair, norm=NORM) for pair in zip(inputs, widths[-2::-1], strict=True))
        self.resblock = nn.ModuleList(ResidualBlock(width, NORM) for width in inputs for _ in range(2))
        self.final = nn.Conv2d(widths[0], num_channels, 7, padding=3)

    def encode(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the features of frames (B, C, H, W) in [0, 1] at every level, fine to coarse."""
        features = [self.first(frames)]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return tuple(features)

    def occlusion(self, motion: TpsMotion, level: int, like: Tensor) -> Tensor:
        """Return the occlusion map (B, 1, H, W) of a level, counted from the finest, at the size of `like`."""
        found = motion.occlusions[-1 - level if self.multi_mask else -1]
        return resize_map(found, *like.shape[2:], align_corners=True)

    def forward(self, source: Tensor, motion: TpsMotion) -> Generated:
        """Render source frames (B, C, H, W) in [0, 1] under a motion."""
        features = self.encode(source)
        coarsest = len(features) - 1
        shown = [
            warped(each, motion.deformation) * self.occlusion(motion, level, each)
            for level, each in enumerate(features)
        ]
        out = shown[coarsest]
        for index, up in enumerate(self.up_blocks):
            level = coarsest - 1 - index
            for block in self.resblock[2 * index : 2 * index + 2]:
                out = block(out)
            out = up(out)
            if level:
                out = torch.cat((out, shown[level]), 1)
        hidden = self.occlusion(motion, 0, out)
        deformed = warped(source, motion.deformation)
        decoded = torch.sigmoid(single(self.final(out * (1 - hidden) + shown[0])))
        return Generated(decoded * (1 - hidden) + deformed * hidden, deformed, motion, features)
