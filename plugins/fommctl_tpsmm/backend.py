"""The Thin-Plate Spline Motion Model (Zhao and Zhang 2022), assembled under the published names."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fommctl.api import Renderer
from fommctl.api.blocks import Motion, PlainRenderer, PlainSource, downsample_at
from fommctl_tpsmm.avd import AvdNetwork, AvdRenderer
from fommctl_tpsmm.encoders import BackgroundPredictor, KeypointDetector, reduced
from fommctl_tpsmm.fast import FastRenderer, flow_of
from fommctl_tpsmm.inpainting import Generated, InpaintingNetwork
from fommctl_tpsmm.motion import DenseMotionNetwork
from fommctl_tpsmm.schema import TpsmmParams

if TYPE_CHECKING:
    from fommctl.api.training import PerceptualNetwork, TrainingPhase
    from fommctl_tpsmm.sections import AvdTrainParams, TrainParams


class ReducedDetector(nn.Module):
    """Detects keypoints in larger frames, reduced to the size that the detector was trained at."""

    def __init__(self, detector: KeypointDetector, scale: float) -> None:
        super().__init__()
        self.detector = detector
        self.scale = scale

    def forward(self, frames: Tensor) -> Motion:
        motion: Motion = self.detector(reduced(frames, self.scale))
        return motion


class Generator(nn.Module):
    """Motion and inpainting network combined, for the plain renderer."""

    def __init__(self, dense_motion: DenseMotionNetwork, inpainting: InpaintingNetwork) -> None:
        super().__init__()
        self.dense_motion = dense_motion
        self.inpainting = inpainting

    def forward(
        self, source: Tensor, source_motion: Motion, driving_motion: Motion, background: Tensor | None = None
    ) -> Generated:
        """Render source frames (B, C, H, W) in [0, 1] under B driving motions.  background: see `warps_between`."""
        motion = self.dense_motion(source, source_motion, driving_motion, background)
        generated: Generated = self.inpainting(source, motion)
        return generated

    @staticmethod
    def flow_of(generated: Generated) -> Tensor:
        """Return the flow (B, H, W, 2) as defined by `fommctl.api.FlowRenderer`."""
        height, width = generated.prediction.shape[2:]
        return flow_of(generated.motion.deformation, (height, width))


class PublishedRenderer(PlainRenderer, AvdRenderer):
    """The plain renderer, with animation via disentanglement and the motion of the background."""

    def __init__(
        self,
        detector: nn.Module,
        generator: Generator,
        device: torch.device,
        avd: AvdNetwork | None,
        background: BackgroundPredictor | None,
    ) -> None:
        PlainRenderer.__init__(self, detector, generator, device)
        AvdRenderer.__init__(self, None if avd is None else avd.to(device))
        self._background = None if background is None else background.to(device)

    @torch.inference_mode()
    def reconstruct(self, context: object, motion: Motion, driving: Tensor) -> Tensor:
        """See `fommctl.api.ReconstructionRenderer`; the background moves too."""
        assert isinstance(context, PlainSource)
        source = context.frame.expand(len(motion), -1, -1, -1)
        background = None if self._background is None else self._background(source, driving)
        generated: Generated = self._generator(source, context.motion, motion, background)
        return generated.prediction


class TpsmmBackend:
    """TPSMM's networks, built from validated `model_params`."""

    def __init__(self, params: TpsmmParams) -> None:
        common, generator = params.common_params, params.generator_params
        self.keypoint_detector = KeypointDetector(common.num_tps, common.num_channels)
        self.dense_motion = DenseMotionNetwork(
            num_tps=common.num_tps,
            num_channels=common.num_channels,
            multi_mask=common.multi_mask,
            levels=generator.num_down_blocks + 1,
            **params.dense_motion_params.model_dump(),
        )
        self.inpainting = InpaintingNetwork(
            num_channels=common.num_channels, multi_mask=common.multi_mask, **generator.model_dump()
        )
        self.background = BackgroundPredictor(common.num_channels) if common.bg else None
        avd = params.avd_network_params
        self.avd = None if avd is None else AvdNetwork(num_tps=common.num_tps, **avd.model_dump())
        for module in self.modules().values():
            module.eval()

    def modules(self) -> Mapping[str, nn.Module]:
        """See `fommctl.api.Backend`."""
        found: dict[str, nn.Module | None] = {
            "inpainting_network": self.inpainting,
            "dense_motion_network": self.dense_motion,
            "kp_detector": self.keypoint_detector,
            "bg_predictor": self.background,
            "avd_network": self.avd,
        }
        return {name: module for name, module in found.items() if module is not None}

    def needed_groups(self) -> Sequence[str]:
        """See `fommctl.api.Backend`."""
        known = self.avd is not None and self.avd.trained
        return [name for name in self.modules() if name != "avd_network" or known]

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """See `fommctl.api.Backend`. The fast renderer keeps no reference to this object.

        Raises UsageError for a `scale` that the motion network's downsampling does not support.
        """
        if fast:
            return FastRenderer(
                self.keypoint_detector,
                self.dense_motion,
                self.inpainting,
                device,
                precision,
                scale,
                avd=self.avd,
                background=self.background,
            )
        dense_motion = self.dense_motion
        if scale != 1:
            dense_motion = copy.deepcopy(dense_motion)
            dense_motion.down = downsample_at(dense_motion.down, self.inpainting.num_channels, scale)
        generator = Generator(dense_motion, self.inpainting)
        detector = ReducedDetector(self.keypoint_detector, scale)
        return PublishedRenderer(detector, generator, device, self.avd, self.background)

    def training(
        self, params: TrainParams | AvdTrainParams, perceptual: PerceptualNetwork | None
    ) -> Sequence[TrainingPhase]:
        """See `fommctl.api.training.TrainableBackend`. Trains all networks except the one of animation via
        disentanglement, or that one alone, depending on `params`."""
        from fommctl_tpsmm.sections import AvdTrainParams
        from fommctl_tpsmm.training import avd_phases, phases

        if isinstance(params, AvdTrainParams):
            return avd_phases(self.keypoint_detector, self.avd, params)
        return phases(self.keypoint_detector, self.dense_motion, self.inpainting, self.background, params, perceptual)
