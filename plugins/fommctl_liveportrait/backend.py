"""LivePortrait (Guo et al. 2024), assembled under the published names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fommctl.api import Renderer
from fommctl.api.blocks import step_at
from fommctl_liveportrait.appearance import AppearanceExtractor
from fommctl_liveportrait.fast import FastRenderer
from fommctl_liveportrait.layers import reduced
from fommctl_liveportrait.motion import FaceMotion, face_motion
from fommctl_liveportrait.motion_extractor import MotionExtractor
from fommctl_liveportrait.retargeting import Corrector
from fommctl_liveportrait.schema import LivePortraitParams
from fommctl_liveportrait.spade import SpadeGenerator
from fommctl_liveportrait.transfer import Correctors, FaceTransfer
from fommctl_liveportrait.warping import WarpingNetwork


@dataclass(frozen=True, slots=True)
class PlainSource:
    """A source of the plain renderer."""

    motion: FaceMotion
    frame: Tensor
    """(1, 3, H, W) in [0, 1]"""


class PlainRenderer(FaceTransfer):
    """The published networks, in fp32 and without caching: the reference for speed and exactness."""

    def __init__(self, backend: LivePortraitBackend, device: torch.device, step: int = 1) -> None:
        """step: factor by which frames are reduced for the networks."""
        self.device, self._step = device, step
        self._appearance, self._extractor = backend.appearance.to(device), backend.extractor.to(device)
        self._warping, self._generator = backend.warping.to(device), backend.generator.to(device)
        self._correctors = backend.correctors(device)

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> FaceMotion:
        """See `fommctl.api.Renderer`."""
        return face_motion(self._extractor(reduced(frames, self._step)))

    def encode_source(self, frame: Tensor) -> PlainSource:
        """See `fommctl.api.Renderer`."""
        return PlainSource(self.detect(frame), frame)

    @torch.inference_mode()
    def render(self, context: Any, motion: FaceMotion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        assert isinstance(context, PlainSource)
        source, driving = context.motion.keypoints(), motion.keypoints()
        frames = []
        for index in range(len(driving)):
            # One at a time: the warped volumes take half a gigabyte per frame.
            volume = self._appearance(reduced(context.frame, self._step))
            warped = self._warping(volume, source, driving[index : index + 1])
            frames.append(self._generator(warped.features))
        return torch.cat(frames) if frames else self._nothing(context.frame)

    def _nothing(self, frame: Tensor) -> Tensor:
        return frame.new_zeros((0, *frame.shape[1:]))


class LivePortraitBackend:
    """LivePortrait's networks, built from validated `model_params`."""

    def __init__(self, params: LivePortraitParams) -> None:
        motion, warping = params.motion_extractor_params, params.warping_module_params
        self.appearance = AppearanceExtractor(**params.appearance_feature_extractor_params.model_dump())
        self.extractor = MotionExtractor(num_kp=motion.num_kp, depths=motion.depths, widths=motion.widths)
        self.warping = WarpingNetwork(
            dense_motion=warping.dense_motion_params.model_dump(),
            **warping.model_dump(exclude={"dense_motion_params", "estimate_occlusion_map"}),
        )
        self.generator = SpadeGenerator(**params.spade_generator_params.model_dump())
        correctors = params.stitching_retargeting_module_params
        self.stitching = Corrector(**correctors.stitching.model_dump())
        self.lips, self.eyes = Corrector(**correctors.lip.model_dump()), Corrector(**correctors.eye.model_dump())
        for module in self.modules().values():
            module.eval()

    def modules(self) -> Mapping[str, nn.Module]:
        """See `fommctl.api.Backend`."""
        return {
            "appearance_feature_extractor": self.appearance,
            "motion_extractor": self.extractor,
            "warping_module": self.warping,
            "spade_generator": self.generator,
            "retarget_shoulder": self.stitching,
            "retarget_mouth": self.lips,
            "retarget_eye": self.eyes,
        }

    def needed_groups(self) -> Sequence[str]:
        """See `fommctl.api.Backend`. The networks that correct keypoints are optional."""
        return [name for name in self.modules() if not name.startswith("retarget_")]

    def correctors(self, device: torch.device) -> Correctors:
        """Return the networks that correct keypoints, moved to a device."""
        return Correctors(self.stitching.to(device), self.eyes.to(device), self.lips.to(device))

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """See `fommctl.api.Backend`. Larger frames are reduced for the networks by a whole factor, 1 / scale; results
        have the usual size. Raises UsageError for other scales."""
        step = step_at(1, scale)
        if not fast:
            return PlainRenderer(self, device, step)
        networks = self.appearance, self.extractor, self.warping, self.generator
        return FastRenderer(*networks, self.correctors(device), device, precision, step)
