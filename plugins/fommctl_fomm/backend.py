"""The First Order Motion Model (Siarohin et al. 2019), built from `fommctl.api.blocks` under the published names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from fommctl.api import Renderer
from fommctl.api.blocks import (
    DenseMotionNetwork,
    FastRenderer,
    Generator,
    KeypointDetector,
    MultiScaleDiscriminator,
    PlainRenderer,
    downsample_at,
)
from fommctl_fomm.schema import FommParams

if TYPE_CHECKING:
    from fommctl.api.training import PerceptualNetwork, TrainingPhase
    from fommctl_fomm.sections import TrainParams


class FommBackend:
    """Keypoint detector, generator and discriminator, built from validated `model_params`."""

    def __init__(self, params: FommParams) -> None:
        common = params.common_params
        detector, generator = params.kp_detector_params, params.generator_params
        motion = generator.dense_motion_params
        self.keypoint_detector = KeypointDetector(
            num_kp=common.num_kp,
            num_channels=common.num_channels,
            estimate_jacobian=common.estimate_jacobian,
            **detector.model_dump(),
        )
        dense_motion = DenseMotionNetwork(
            num_kp=common.num_kp,
            num_channels=common.num_channels,
            estimate_occlusion_map=generator.estimate_occlusion_map,
            align_corners=common.align_corners,
            **motion.model_dump(),
        )
        self.generator = Generator(
            dense_motion,
            num_channels=common.num_channels,
            align_corners=common.align_corners,
            **generator.model_dump(exclude={"estimate_occlusion_map", "dense_motion_params"}),
        )
        self.discriminator: MultiScaleDiscriminator | None = None
        if params.discriminator_params is not None:
            self.discriminator = MultiScaleDiscriminator(
                num_channels=common.num_channels, num_kp=common.num_kp, **params.discriminator_params.model_dump()
            )
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
            return FastRenderer(self.keypoint_detector, self.generator, device, precision, scale)
        detector, generator = self.keypoint_detector, self.generator
        if scale != 1:
            detector, generator = copy.deepcopy(detector), copy.deepcopy(generator)
            for network in (detector, generator.dense_motion_network):
                network.down = downsample_at(network.down, generator.num_channels, scale)
        return PlainRenderer(detector, generator, device)

    def training(self, params: TrainParams, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`."""
        from fommctl_fomm.training import phases

        return phases(self.keypoint_detector, self.generator, self.discriminator, params, perceptual)
