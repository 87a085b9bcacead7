"""The fast renderer: keypoints, dense motion and painting, with everything about the source computed once."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from fommctl.core.fast.convolutions import Numerics
from fommctl.core.fast.cuda import Graphs, exact_convolutions
from fommctl.core.fast.detector import FastKeypointDetector
from fommctl.core.fast.motion import FastDenseMotion, MotionSource
from fommctl.core.fast.networks import FastEncoder, FastPainter
from fommctl.core.fast.warp import neighbours, weighted_rows
from fommctl.core.generator import Generator
from fommctl.core.grids import resize_grid, resize_map
from fommctl.core.keypoints import KeypointDetector
from fommctl.core.transfer import Motion

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


class FastRenderer:
    """The published networks, rewritten for inference (see `fommctl.api.Renderer`).

    Keypoints, grids and the softmax of the masks stay in float32 whatever the precision of the convolutions. The
    renderer keeps no reference to the networks that it was made from: drop them, and their memory is free. Its
    buffers serve one call at a time: not for several threads at once.
    """

    def __init__(
        self,
        keypoint_detector: KeypointDetector,
        generator: Generator,
        device: torch.device,
        precision: str = "fp32",
        scale: float = 1.0,
    ) -> None:
        self.device = device
        numerics = Numerics(device, DTYPES[precision])
        channels = generator.final.out_channels
        with torch.inference_mode():
            self._detector = FastKeypointDetector(keypoint_detector, Numerics(device, torch.float32), channels, scale)
            self._motion = FastDenseMotion(generator.dense_motion_network, numerics, channels, scale)
            self._encoder = FastEncoder(generator, Numerics(device, torch.float32))
            self._painter = FastPainter(generator, numerics)
        self._align_corners = generator.align_corners
        self._dtype = numerics.dtype
        self._graphs = Graphs() if device.type == "cuda" else None

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        if self._graphs is None:
            return self._detector(frames)
        with exact_convolutions():
            return Motion(*self._graphs("detect", lambda values: _tensors(self._detector(values)), self, frames))

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> FastSource:
        """See `fommctl.api.Renderer`."""
        with nullcontext() if self._graphs is None else exact_convolutions():
            motion = self._detector(frame)
            features = self._encoder(frame)
        height, width = features.shape[2:]
        table = features.permute(0, 2, 3, 1).reshape(height * width, -1).to(self._dtype)
        return FastSource(motion, self._motion.encode_source(frame, motion), table, (height, width))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`; context: from `encode_source` of this renderer."""
        assert isinstance(context, FastSource)
        if self._graphs is None:
            return self._render(context, motion)
        with exact_convolutions():
            return self._graphs(
                "render", lambda *values: (self._render(context, Motion(*values)),), context, *_tensors(motion)
            )[0]

    def _render(self, context: FastSource, motion: Motion) -> Tensor:
        flow, occlusion = self._motion(context.small, context.motion, motion)
        height, width = context.size
        gain = None if occlusion is None else resize_map(occlusion, height, width)
        grid = resize_grid(flow, height, width)
        indices, weights = neighbours(grid, height, width, align_corners=self._align_corners, gain=gain)
        warped = weighted_rows(context.table, indices, weights)
        features = warped.view(len(motion), height, width, -1).permute(0, 3, 1, 2)
        return self._painter(features).float().sigmoid_().permute(0, 3, 1, 2)


def _tensors(motion: Motion) -> tuple[Tensor, ...]:
    return (motion.keypoints,) if motion.jacobians is None else (motion.keypoints, motion.jacobians)
