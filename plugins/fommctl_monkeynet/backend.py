"""Monkey-Net, composed of the core's blocks under the published names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fommctl.api import Renderer
from fommctl.api.blocks import Motion, NearestDownsample, step_at
from fommctl_monkeynet.discriminator import KeypointDiscriminator
from fommctl_monkeynet.fast import FastMonkeyRenderer
from fommctl_monkeynet.generator import MotionTransferGenerator
from fommctl_monkeynet.keypoints import MonkeyKeypointDetector
from fommctl_monkeynet.schema import MonkeyNetParams

if TYPE_CHECKING:
    from fommctl.api.training import PerceptualNetwork, TrainingPhase
    from fommctl_monkeynet.sections import TrainParams


@dataclass(frozen=True, slots=True)
class PlainSource:
    """The source picture and its motion; the plain renderer computes everything else anew for each frame."""

    frame: Tensor
    motion: Motion


class PlainRenderer:
    """The networks as they are, in fp32, with nothing cached: the reference for speed and exactness."""

    def __init__(
        self,
        keypoint_detector: MonkeyKeypointDetector,
        generator: MotionTransferGenerator,
        device: torch.device,
        scale: float,
    ) -> None:
        """scale: see `fommctl.api.Backend.prepare`."""
        self.device = device
        if scale != 1:
            keypoint_detector, generator = copy.deepcopy(keypoint_detector), copy.deepcopy(generator)
            for module in (*keypoint_detector.modules(), *generator.modules()):
                if isinstance(module, NearestDownsample):
                    module.step = step_at(module.step, scale)
        self._keypoint_detector = keypoint_detector.to(device).eval()
        self._generator = generator.to(device).eval()

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        motion: Motion = self._keypoint_detector(frames)
        return motion

    def encode_source(self, frame: Tensor) -> PlainSource:
        """See `fommctl.api.Renderer`."""
        return PlainSource(frame, self.detect(frame))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        assert isinstance(context, PlainSource)
        source = context.frame.expand(len(motion), -1, -1, -1)
        prediction: Tensor = self._generator(source, context.motion, motion).prediction
        return prediction


class MonkeyNetBackend:
    """Keypoint detector, generator and discriminator built from validated `model_params`."""

    def __init__(self, params: MonkeyNetParams) -> None:
        common = params.common_params
        self.keypoint_detector = MonkeyKeypointDetector(
            num_kp=common.num_kp,
            num_channels=common.num_channels,
            kp_variance=common.kp_variance,
            **params.kp_detector_params.model_dump(),
        )
        self.generator = MotionTransferGenerator(common, params.generator_params)
        self.discriminator: KeypointDiscriminator | None = None
        if params.discriminator_params is not None:
            self.discriminator = KeypointDiscriminator(common, params.discriminator_params)
        for module in self.modules().values():
            module.eval()

    def modules(self) -> Mapping[str, nn.Module]:
        """See `fommctl.api.Backend`."""
        found = {"generator": self.generator, "kp_detector": self.keypoint_detector}
        return found if self.discriminator is None else {**found, "discriminator": self.discriminator}

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """See `fommctl.api.Backend`. The fast renderer keeps nothing of this object. Raises UsageError for a `scale`
        that the networks' downsampling cannot reach."""
        if fast:
            return FastMonkeyRenderer(self.keypoint_detector, self.generator, device, precision, scale)
        return PlainRenderer(self.keypoint_detector, self.generator, device, scale)

    def training(self, params: TrainParams, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`."""
        from fommctl_monkeynet.training import phases

        return phases(self.keypoint_detector, self.generator, self.discriminator, params)
