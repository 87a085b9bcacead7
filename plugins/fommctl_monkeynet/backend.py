"""Monkey-Net (Siarohin et al., CVPR 2019), built from `fommctl.api.blocks` under the published names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from fommctl.api import Renderer
from fommctl.api.blocks import NearestDownsample, PlainRenderer, step_at
from fommctl_monkeynet.fast import FastMonkeyRenderer
from fommctl_monkeynet.networks import KeypointDiscriminator, MonkeyKeypointDetector, MotionTransferGenerator
from fommctl_monkeynet.schema import MonkeyNetParams

if TYPE_CHECKING:
    from fommctl.api.training import PerceptualNetwork, TrainingPhase
    from fommctl_monkeynet.schema import TrainParams


class MonkeyNetBackend:
    """Keypoint detector, generator and discriminator, built from validated `model_params`."""

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

    def needed_groups(self) -> Sequence[str]:
        """See `fommctl.api.Backend`."""
        return ("generator", "kp_detector")

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """See `fommctl.api.Backend`. The fast renderer keeps no reference to this object.

        Raises UsageError for a `scale` that the networks' downsampling does not support.
        """
        if fast:
            return FastMonkeyRenderer(self.keypoint_detector, self.generator, device, precision, scale)
        detector, generator = self.keypoint_detector, self.generator
        if scale != 1:
            detector, generator = copy.deepcopy(detector), copy.deepcopy(generator)
            for module in (*detector.modules(), *generator.modules()):
                if isinstance(module, NearestDownsample):
                    module.step = step_at(module.step, scale)
        return PlainRenderer(detector, generator, device)

    def training(self, params: TrainParams, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`."""
        from fommctl_monkeynet.training import phases

        return phases(self.keypoint_detector, self.generator, self.discriminator, params)
