"""X2Face: unwarps a source to an embedded face, and warps that face by the flow of each driving frame."""

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
    """An encoded source."""

    motion: Motion
    """Motion of its first view."""
    views: Tensor
    """(S, 3, H, W) in [0, 1]"""
    face: Tensor | None
    """(1, 3, H, W): the embedded face; None if it is computed for each frame."""
    unwarping: Tensor | None = None
    """(1, 2, h, w): offset to the position in the first view of each position of the face; None if it is computed for
    each frame."""


class X2FaceRenderer:
    """Both networks on one device. The motion of a frame is the driving network's code; there are no keypoints.

    The networks run at the size that they were trained at: frames of another size are resized for them, and their flow
    is resized to the frames, so that pictures keep their full resolution.

    Half precision is used only to decode codes. The source is embedded only once anyway, and encoding codes in bf16
    shifts the picture (39 dB instead of 50 dB, with random weights and flows of six pixels).
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
        """See `fommctl.api.Renderer`; the motion is that of the first picture."""
        return Source(self.detect(frame[:1]), frame, self._embedded(frame), self._unwarping(frame[:1]))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        assert isinstance(context, Source)
        return self._rendered(context, self._flow(context, motion))

    @torch.inference_mode()
    def render_with_flow(self, context: object, motion: Motion) -> tuple[Tensor, Tensor]:
        """See `fommctl.api.FlowRenderer`; the flow leads through the embedded face to the source's first picture."""
        assert isinstance(context, Source)
        flow = self._flow(context, motion)
        unwarping = self._unwarping(context.views[:1]) if context.unwarping is None else context.unwarping
        return self._rendered(context, flow), through(flow, unwarping)

    def _flow(self, context: Source, motion: Motion) -> Tensor:
        """Return the offset to the position in the embedded face of each position of a frame, (B, 2, h, w)."""
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
        """Return the offset to the position in a picture (1, 3, H, W) of each position of the embedded face, (1, 2, h,
        w)."""
        with self._exactly():
            unwarping: Tensor = self._embedding(reduced(picture, self._native(picture)))[0]
            return unwarping

    def _embedded(self, views: Tensor) -> Tensor:
        with self._exactly():
            return embedded_face(self._embedding, views, self._native(views))

    def _native(self, frames: Tensor) -> tuple[int, int]:
        """Return the (height, width) to which frames (B, 3, H, W) are resized for the networks."""
        return round(frames.shape[2] * self._scale), round(frames.shape[3] * self._scale)

    def _exactly(self) -> AbstractContextManager[object]:
        """Return a context in which a GPU does not round float32 convolutions to TF32."""
        return exact_convolutions() if self.device.type == "cuda" else nullcontext()


class PlainRenderer(X2FaceRenderer):
    """The published networks, in fp32; the source is embedded again for each frame."""

    def __init__(
        self, embedding: EmbeddingNetwork, driving: DrivingNetwork, device: torch.device, scale: float = 1.0
    ) -> None:
        super().__init__(embedding, driving, device, "fp32", scale)

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> Source:
        """See `fommctl.api.Renderer`."""
        return Source(self.detect(frame[:1]), frame, None)


class FastRenderer(X2FaceRenderer):
    """Embeds the source once, and folds BatchNorms into the convolutions; keeps no reference to the networks given."""

    def __init__(
        self, embedding: EmbeddingNetwork, driving: DrivingNetwork, device: torch.device, precision: str, scale: float
    ) -> None:
        super().__init__(_folded(embedding), _folded(driving), device, precision, scale)


class X2FaceBackend:
    """Embedding and driving network, built from validated `model_params`."""

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
        """See `fommctl.api.Backend`; every scale is supported."""
        if fast:
            return FastRenderer(self.embedding, self.driving, device, precision, scale)
        return PlainRenderer(self.embedding, self.driving, device, scale)

    def training(self, params: X2FaceTrainParams, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`."""
        from fommctl_x2face.training import phases

        return phases(self.embedding, self.driving, params)


def _folded(network: Network) -> Network:
    """Return a copy with BatchNorms folded into the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for layers in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for place in range(1, len(layers)):
            convolution, norm = layers[place - 1], layers[place]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[place - 1], layers[place] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return folded
