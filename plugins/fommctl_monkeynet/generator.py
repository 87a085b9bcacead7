"""The generator: the source's features, warped at every scale, and the keypoints (Monkey-Net, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    Decoder,
    Encoder,
    Motion,
    NearestDownsample,
    ResidualBlock,
    between_borders,
    full_precision,
    identity_grid,
    resize_grid,
    resize_map,
    sample,
    single,
)
from fommctl_monkeynet.embedding import KeypointEmbedding
from fommctl_monkeynet.motion import DenseMotionModule

if TYPE_CHECKING:
    from fommctl_monkeynet.schema import CommonParams, GeneratorParams


@dataclass(frozen=True, slots=True)
class Painted:
    """A prediction and what led to it."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source itself, warped by the flow."""
    mask: Tensor | None
    """(B, K + 1, h, w): which part each place belongs to, background first; sums to 1."""
    flow: Tensor | None
    """(B, h, w, 2), corner pixels at -1 and 1; None where nothing is moved."""


class MotionTransferGenerator(nn.Module):
    """Warps the source's features along the dense motion and paints the frame from them and the keypoints."""

    def __init__(self, common: CommonParams, params: GeneratorParams) -> None:
        super().__init__()
        self.align_corners = common.align_corners
        self.mode = "nearest" if params.interpolation_mode == "nearest" else "bilinear"
        channels, shape = common.num_channels, (params.num_blocks, params.max_features)
        self.appearance_encoder = Encoder(params.block_expansion, channels, *shape)
        self.dense_motion_module: DenseMotionModule | None = None
        if params.dense_motion_params is not None:
            self.dense_motion_module = DenseMotionModule(common, params.dense_motion_params)
        self.embedding: KeypointEmbedding | None = None
        self.embedding_down = NearestDownsample(1)
        if params.kp_embedding_params is not None:
            shown = params.kp_embedding_params
            self.embedding = KeypointEmbedding(shown, common, background=shown.add_bg_feature_map)
            self.embedding_down = NearestDownsample(shown.scale_factor)
        extra = 0 if self.embedding is None else self.embedding.channels
        self.video_decoder = Decoder(params.block_expansion, channels, *shape, extra=extra)
        width = self.video_decoder.out_filters
        self.refinement_module = nn.Sequential()
        for index in range(params.num_refinement_blocks):
            self.refinement_module.add_module(f"r{index}", ResidualBlock(width))
        self.refinement_module.add_module("conv-last", nn.Conv2d(width, channels, 1))

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> Painted:
        """source: (B, C, H, W) in [0, 1], as many as driving frames."""
        features = self.appearance_encoder(source)
        if self.dense_motion_module is None:
            flow = identity_grid(source.shape[2], source.shape[3], like=driving_motion.keypoints)
            flow, mask = flow.expand(len(source), -1, -1, -1), None
        else:
            flow, mask = self.dense_motion_module(source, source_motion, driving_motion)
        warped = [self.warp(values, flow) for values in features]
        if self.embedding is not None:
            with full_precision(source):
                shown = self.embedding(
                    self.embedding.of_source(single(self.embedding_down(source)), source_motion), driving_motion
                )
            warped = [torch.cat((values, self._resized(shown, values)), 1) for values in warped]
        painted = self.refinement_module(self.video_decoder(warped))
        moved = None if self.dense_motion_module is None else flow
        return Painted(torch.sigmoid(single(painted)), self.warp(source, flow), mask, moved)

    def warp(self, values: Tensor, flow: Tensor) -> Tensor:
        """values (B, C, H, W) along a flow (B, h, w, 2) of any resolution."""
        grid = resize_grid(flow, values.shape[2], values.shape[3], self.mode)
        return sample(values, grid, align_corners=self.align_corners)

    def flow_of(self, painted: Painted) -> Tensor | None:
        """What moved the source itself: the flow (B, h, w, 2) of `fommctl.api.FlowRenderer`."""
        if painted.flow is None:
            return None
        height, width = painted.prediction.shape[2:]
        return between_borders(painted.flow, (height, width), align_corners=self.align_corners)

    def _resized(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize_map(maps, like.shape[2], like.shape[3], self.mode)
