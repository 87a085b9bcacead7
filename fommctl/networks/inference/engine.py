"""The fast renderer: keypoints, dense motion and painting, with everything about the source computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fommctl.networks.generator import Generator, inside
from fommctl.networks.grids import between_borders, resize_grid, resize_map, sample
from fommctl.networks.inference.convolutions import Numerics
from fommctl.networks.inference.detector import FastKeypointDetector
from fommctl.networks.inference.motion import FastDenseMotion, MotionSource
from fommctl.networks.inference.networks import FastEncoder, FastPainter
from fommctl.networks.inference.renderer import GraphedRenderer
from fommctl.networks.inference.warp import neighbours, weighted_rows
from fommctl.networks.keypoints import KeypointDetector
from fommctl.networks.transfer import Motion

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class FastSource:
    """All that depends on the source alone."""

    motion: Motion
    small: MotionSource
    table: Tensor
    """(h w, F): the encoded features, one row a place."""
    size: tuple[int, int]
    """Height h and width w of the features."""
    pixels: Tensor | None
    """(1, C, H, W) float32: the source itself, where the model blends it in."""


class FastRenderer(GraphedRenderer[FastSource]):
    """The published networks, rewritten for inference (see `fommctl.api.Renderer`).

    Keypoints, grids and the softmax of the masks stay in float32 whatever the precision of the convolutions. The
    renderer keeps no reference to the networks that it was made from: drop them, and their memory is free.
    """

    def __init__(
        self,
        keypoint_detector: KeypointDetector,
        generator: Generator,
        device: torch.device,
        precision: str = "fp32",
        scale: float = 1.0,
    ) -> None:
        super().__init__(device)
        numerics = Numerics(device, DTYPES[precision])
        channels = generator.num_channels
        with torch.inference_mode():
            self._detector = FastKeypointDetector(keypoint_detector, Numerics(device, torch.float32), channels, scale)
            self._motion = FastDenseMotion(generator.dense_motion_network, numerics, channels, scale)
            self._encoder = FastEncoder(generator, Numerics(device, torch.float32))
            self._painter = FastPainter(generator, numerics)
        self._align_corners = generator.align_corners
        self._dtype = numerics.dtype
        self._blends = generator.blend is not None

    def _detect(self, frames: Tensor) -> Motion:
        return self._detector(frames)

    def _encode(self, frame: Tensor) -> FastSource:
        motion = self._detector(frame)
        features = self._encoder(frame)
        height, width = features.shape[2:]
        table = features.permute(0, 2, 3, 1).reshape(height * width, -1).to(self._dtype)
        pixels = frame.contiguous() if self._blends else None
        return FastSource(motion, self._motion.encode_source(frame, motion), table, (height, width), pixels)

    def _render(self, context: FastSource, motion: Motion) -> Tensor:
        return self._render_with_flow(context, motion)[0]

    def _render_with_flow(self, context: FastSource, motion: Motion) -> tuple[Tensor, Tensor]:
        flow, occlusion = self._motion(context.small, context.motion, motion)
        height, width = context.size
        gain = None if occlusion is None else resize_map(occlusion, height, width)
        grid = resize_grid(flow, height, width)
        indices, weights = neighbours(grid, height, width, align_corners=self._align_corners, gain=gain)
        warped = weighted_rows(context.table, indices, weights)
        features = warped.view(len(motion), height, width, -1).permute(0, 3, 1, 2)
        painted = self._painter(features).float().sigmoid_().permute(0, 3, 1, 2)
        if context.pixels is None:
            return painted, between_borders(flow, context.size, align_corners=self._align_corners)
        # What shows of the source was moved at the frame's size, not at that of the features.
        size = context.pixels.shape[2], context.pixels.shape[3]
        frames = self._blended(painted, context.pixels, flow)
        return frames, between_borders(flow, size, align_corners=self._align_corners)

    def _blended(self, painted: Tensor, pixels: Tensor, flow: Tensor) -> Tensor:
        """painted: (B, C + 1, H, W), the share of the warped source last.  Returns (B, C, H, W)."""
        grid = resize_grid(inside(flow), *painted.shape[2:])
        # Of three channels, unlike of many, this is faster than a sum of rows.
        kept = sample(pixels.expand(len(grid), -1, -1, -1), grid.contiguous(), align_corners=self._align_corners)
        return torch.lerp(painted[:, :-1], kept, painted[:, -1:])
