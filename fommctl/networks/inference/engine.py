"""The fast renderer: keypoints, dense motion and decoding, with everything about the source computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fommctl.networks.fomm import EMBEDDED_HEIGHT, EMBEDDED_VARIANCE, Generator, KeypointDetector, inside
from fommctl.networks.grids import between_borders, resize_grid, resize_map, sample
from fommctl.networks.inference.convolutions import Numerics, weight_and_bias
from fommctl.networks.inference.devices import Graphs, exact_convolutions
from fommctl.networks.inference.motion import (
    FastDenseMotion,
    FastKeypointDetector,
    MotionSource,
    heatmaps_last,
    neighbours,
    weighted_rows,
)
from fommctl.networks.inference.networks import FastDecoder, FastEncoder
from fommctl.networks.motion import Motion, MotionParts

Context = TypeVar("Context")


class GraphedRenderer(ABC, Generic[Context]):
    """A renderer (see `fommctl.api.Renderer`) whose passes become CUDA graphs on a GPU, with convolutions in the chosen
    type, not rounded to TF32. Not thread-safe: calls share buffers.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs = Graphs() if device.type == "cuda" else None
        self._made: tuple[type[MotionParts], tuple[bool, ...]] = Motion, ()
        """Type of the last detected motion, and which parts it has."""

    @abstractmethod
    def _detect(self, frames: Tensor) -> Any: ...

    @abstractmethod
    def _encode(self, frame: Tensor) -> Context: ...

    @abstractmethod
    def _render(self, context: Context, motion: Any) -> Tensor: ...

    def _render_with_flow(self, context: Context, motion: Any) -> tuple[Tensor, Tensor | None]:
        """Return frames and flow, see `fommctl.api.FlowRenderer`; None for models without flow."""
        return self._render(context, motion), None

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Any:
        """See `fommctl.api.Renderer`."""
        if self._graphs is None:
            return self._detect(frames)
        with exact_convolutions():
            found = self._graphs("detect", self._detected, self, frames)
        return _motion(found, *self._made)

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> Context:
        """See `fommctl.api.Renderer`."""
        with nullcontext() if self._graphs is None else exact_convolutions():
            return self._encode(frame)

    @torch.inference_mode()
    def render(self, context: Any, motion: MotionParts) -> Tensor:
        """See `fommctl.api.Renderer`; context: from `encode_source` of this renderer."""
        if self._graphs is None:
            return self._render(context, motion)
        made = _made(motion)
        given = [part for part in motion.parts() if part is not None]
        with exact_convolutions():
            return self._graphs(
                "render", lambda *values: (self._render(context, _motion(values, *made)),), context, *given
            )[0]

    @torch.inference_mode()
    def render_with_flow(self, context: Any, motion: MotionParts) -> tuple[Tensor, Tensor | None]:
        """See `fommctl.api.FlowRenderer`; context: from `encode_source` of this renderer."""
        if self._graphs is None:
            return self._render_with_flow(context, motion)
        made = _made(motion)
        given = [part for part in motion.parts() if part is not None]

        def rendered(*values: Tensor) -> tuple[Tensor, ...]:
            frames, flow = self._render_with_flow(context, _motion(values, *made))
            return (frames,) if flow is None else (frames, flow)

        with exact_convolutions():
            frames, *flow = self._graphs("render with flow", rendered, context, *given)
        return frames, flow[0] if flow else None

    def _detected(self, frames: Tensor) -> tuple[Tensor, ...]:
        motion = self._detect(frames)
        self._made = _made(motion)
        return tuple(part for part in motion.parts() if part is not None)


def _made(motion: MotionParts) -> tuple[type[MotionParts], tuple[bool, ...]]:
    """Return the type of a motion, and which parts it has."""
    return type(motion), tuple(part is not None for part in motion.parts())


def _motion(tensors: Sequence[Tensor], kind: type[MotionParts], there: Sequence[bool]) -> MotionParts:
    """Build a motion from the tensors of its parts.  there: which parts it has."""
    left = iter(tensors)
    return kind(*(next(left) if present else None for present in there))


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class FastSource:
    """Everything that depends only on the source."""

    motion: Motion
    small: MotionSource
    table: Tensor
    """(h w, F): the encoded features, one row per position."""
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
            self._decoder = FastDecoder(generator, numerics)
            told = generator.embedding
            self._embedding = None if told is None else numerics.convolution(*weight_and_bias(told), padding=1)
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
        if self._embedding is not None:
            heatmaps = heatmaps_last(motion.keypoints, height, width, EMBEDDED_VARIANCE) * EMBEDDED_HEIGHT
            features = features + self._embedding(heatmaps.to(self._dtype).permute(0, 3, 1, 2))
        decoded = self._decoder(features).float().sigmoid_().permute(0, 3, 1, 2)
        if context.pixels is None:
            return decoded, between_borders(flow, context.size, align_corners=self._align_corners)
        # Blended source pixels were warped at the frame's size, not at the features'.
        size = context.pixels.shape[2], context.pixels.shape[3]
        frames = self._blended(decoded, context.pixels, flow)
        return frames, between_borders(flow, size, align_corners=self._align_corners)

    def _blended(self, decoded: Tensor, pixels: Tensor, flow: Tensor) -> Tensor:
        """Blend the warped source in.  decoded: (B, C + 1, H, W), its share last.  Returns (B, C, H, W)."""
        grid = resize_grid(inside(flow), *decoded.shape[2:])
        # For three channels, unlike for many, this is faster than a sum of rows.
        kept = sample(pixels.expand(len(grid), -1, -1, -1), grid.contiguous(), align_corners=self._align_corners)
        return torch.lerp(decoded[:, :-1], kept, decoded[:, -1:])
