"""X2Face: a source is unwarped to an embedded face, which a driving frame's flow warps to its pose."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fommctl.api import Renderer
from fommctl.api.blocks import Motion, exact_convolutions
from fommctl_x2face.networks import DrivingNetwork, EmbeddingNetwork, embedded_face, reduced, through, warped
from fommctl_x2face.schema import X2FaceParams

if TYPE_CHECKING:
    from fommctl.api.training import PerceptualNetwork, TrainingPhase
    from fommctl_x2face.training import X2FaceTrainParams

Network = TypeVar("Network", bound=nn.Module)
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Source:
    """A source as both renderers keep it."""

    motion: Motion
    """Motion of its first view."""
    views: Tensor
    """(S, 3, H, W)"""
    face: Tensor | None
    """(1, 3, H, W), embedded; None where it is computed anew for each frame."""
    unwarping: Tensor | None = None
    """(1, 2, h, w): position in the first view of each position of the face; None if it is computed each time."""


class X2FaceRenderer:
    """Both networks on one device. The motion of a frame is the driving network's code; there are no keypoints.

    The networks see frames at the size that they were trained at. Frames of another size are resized for them, and
    their flow is resized to the frames, so that the picture itself keeps its pixels.

    In half precision codes are decoded, nothing else: the source is embedded once anyway, and codes found in bf16 move
    the picture elsewhere (measured with random weights and flows of six pixels: 39 dB against 50 dB).
    """

    def __init__(
        self, embedding: EmbeddingNetwork, driving: DrivingNetwork, device: torch.device, precision: str, scale: float
    ) -> None:
        """precision, scale: see `fommctl.api.Backend.prepare`."""
        self.device = device
        self._embedding = embedding.to(device).eval()
        self._driving = driving.to(device).eval()
        self._half = HALVES.get(precision)
        self._scale = scale

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        with self._exactly():
            codes = self._driving.encode(reduced(frames, self._native(frames)))
        return Motion(codes.new_zeros(len(codes), 0, 2), codes=codes.flatten(1))

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> Source:
        """See `fommctl.api.Renderer`; the motion is the first picture's."""
        return Source(self.detect(frame[:1]), frame, self._embedded(frame), self._unwarping(frame[:1]))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        assert isinstance(context, Source)
        return self._rendered(context, self._flow(context, motion))

    @torch.inference_mode()
    def render_with_flow(self, context: object, motion: Motion) -> tuple[Tensor, Tensor]:
        """See `fommctl.api.FlowRenderer`; through the embedded face back to the first picture of the source."""
        assert isinstance(context, Source)
        flow = self._flow(context, motion)
        unwarping = self._unwarping(context.views[:1]) if context.unwarping is None else context.unwarping
        return self._rendered(context, flow), through(flow, unwarping)

    def _flow(self, context: Source, motion: Motion) -> Tensor:
        """Return where in the embedded face each place comes from, less the place itself: (B, 2, h, w)."""
        assert motion.codes is not None
        height, width = (side // self._driving.step for side in self._native(context.views))
        with self._exactly() if self._half is None else torch.autocast(self.device.type, self._half):
            return self._driving.decode(motion.codes.view(len(motion), -1, height, width))

    def _rendered(self, context: Source, flow: Tensor) -> Tensor:
        faces = context.face
        if faces is None:
            faces = torch.cat([self._embedded(context.views) for _ in range(len(flow))])
        return warped(faces.expand(len(flow), -1, -1, -1), flow).clamp_(0, 1)

    def _unwarping(self, picture: Tensor) -> Tensor:
        """Return where in a picture (1, 3, H, W) each place of the embedded face lies, less the place itself: (1, 2, h,
        w)."""
        with self._exactly():
            unwarping: Tensor = self._embedding(reduced(picture, self._native(picture)))[0]
            return unwarping

    def _embedded(self, views: Tensor) -> Tensor:
        with self._exactly():
            return embedded_face(self._embedding, views, self._native(views))

    def _native(self, frames: Tensor) -> tuple[int, int]:
        """Return (height, width) at which the networks see frames (B, 3, H, W)."""
        return round(frames.shape[2] * self._scale), round(frames.shape[3] * self._scale)

    def _exactly(self) -> AbstractContextManager[object]:
        """Let a GPU convolve float32 without rounding to TF32 inside."""
        return exact_convolutions() if self.device.type == "cuda" else nullcontext()


class PlainRenderer(X2FaceRenderer):
    """The published networks as they are, in fp32; the source is embedded anew for each frame."""

    def __init__(
        self, embedding: EmbeddingNetwork, driving: DrivingNetwork, device: torch.device, scale: float = 1.0
    ) -> None:
        super().__init__(embedding, driving, device, "fp32", scale)

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> Source:
        """See `fommctl.api.Renderer`."""
        return Source(self.detect(frame[:1]), frame, None)


class FastRenderer(X2FaceRenderer):
    """The source is embedded once, BatchNorm is folded into the convolutions; keeps nothing of the networks given."""

    def __init__(
        self, embedding: EmbeddingNetwork, driving: DrivingNetwork, device: torch.device, precision: str, scale: float
    ) -> None:
        super().__init__(_folded(embedding), _folded(driving), device, precision, scale)


class X2FaceBackend:
    """Embedding and driving network built from validated `model_params`."""

    def __init__(self, params: X2FaceParams) -> None:
        self.embedding = EmbeddingNetwork(**params.embedding_params.model_dump()).eval()
        self.driving = DrivingNetwork(**params.driving_params.model_dump()).eval()

    def modules(self) -> Mapping[str, nn.Module]:
        """See `fommctl.api.Backend`."""
        return {"embedding": self.embedding, "driving": self.driving}

    def needed_groups(self) -> Sequence[str]:
        """See `fommctl.api.Backend`."""
        return ("embedding", "driving")

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """See `fommctl.api.Backend`; any scale will do."""
        if fast:
            return FastRenderer(self.embedding, self.driving, device, precision, scale)
        return PlainRenderer(self.embedding, self.driving, device, scale)

    def training(self, params: X2FaceTrainParams, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`."""
        from fommctl_x2face.training import phases

        return phases(self.embedding, self.driving, params)


def _folded(network: Network) -> Network:
    """Return a copy whose BatchNorms are part of the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for layers in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for place in range(1, len(layers)):
            convolution, norm = layers[place - 1], layers[place]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[place - 1], layers[place] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return folded
