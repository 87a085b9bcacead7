"""TPSMM's training step (Zhao and Zhang 2022, section 3.6), as published."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from fommctl.api import UsageError
from fommctl.api.blocks import Motion, full_precision, single
from fommctl.api.training import (
    ImagePyramid,
    PerceptualNetwork,
    PhaseResult,
    TrainingBatch,
    TrainingPhase,
    TrainingView,
    perceptual_loss,
    pixel_loss,
)
from fommctl_tpsmm.avd import AvdNetwork
from fommctl_tpsmm.encoders import BackgroundPredictor, KeypointDetector
from fommctl_tpsmm.inpainting import Generated, InpaintingNetwork, warped
from fommctl_tpsmm.motion import DenseMotionNetwork
from fommctl_tpsmm.sections import AvdTrainParams, TrainParams
from fommctl_tpsmm.splines import RandomWarp

BETAS = (0.5, 0.999)
"""Adam's betas, as published."""


class TpsPhase(nn.Module):
    """Computes the losses of all networks except that of animation via disentanglement."""

    def __init__(
        self,
        keypoint_detector: KeypointDetector,
        dense_motion: DenseMotionNetwork,
        inpainting: InpaintingNetwork,
        background: BackgroundPredictor | None,
        params: TrainParams,
        perceptual: PerceptualNetwork | None,
    ) -> None:
        super().__init__()
        self.keypoint_detector = keypoint_detector
        self.dense_motion = dense_motion
        self.inpainting = inpainting
        self.background = background
        self.perceptual = perceptual
        self.pyramid = ImagePyramid(params.scales, inpainting.num_channels)
        self._params = params

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        params, weights = self._params, self._params.loss_weights
        epoch = batch.epoch
        source: Motion = self.keypoint_detector(batch.source)
        driving: Motion = self.keypoint_detector(batch.driving)
        background = None
        if self.background is not None and epoch >= params.bg_start:
            background = self.background(batch.source, batch.driving)
        kept = self._kept(batch.source, epoch)
        motion = self.dense_motion(batch.source, source, driving, background, kept)
        generated: Generated = self.inpainting(batch.source, motion)
        real, predicted = self.pyramid(batch.driving), self.pyramid(generated.prediction)
        losses: dict[str, Tensor] = {}
        if self.perceptual is not None and any(weights.perceptual):
            losses["perceptual"] = perceptual_loss(self.perceptual, weights.perceptual, predicted, real)
        if weights.pixel:
            losses["pixel"] = weights.pixel * pixel_loss(predicted, real)
        if weights.equivariance_value:
            losses["equivariance_value"] = weights.equivariance_value * self._equivariance(batch, driving)
        if weights.warp_loss:
            losses["warp_loss"] = weights.warp_loss * self._warp_loss(batch.driving, generated)
        if weights.bg and background is not None:
            losses["bg"] = weights.bg * self._background_loss(batch, background)
        return PhaseResult(losses, None, _view(batch, source, driving, generated))

    def _kept(self, like: Tensor, epoch: int) -> Tensor | None:
        """Return which warps (B, K + 1), bool, are used in this step; None for all. The background always is."""
        params = self._params
        if epoch >= params.dropout_epoch:
            return None
        rising = epoch / params.dropout_inc_epoch * params.dropout_maxp + params.dropout_startp
        share = 1 - min(rising, params.dropout_maxp)
        kept = torch.rand(len(like), self.dense_motion.maps.out_channels, device=like.device) < share
        kept[:, 0] = True
        return kept

    def _equivariance(self, batch: TrainingBatch, driving: Motion) -> Tensor:
        warp = RandomWarp(batch.transform.theta, batch.transform.control_params)
        moved: Motion = self.keypoint_detector(warp.frames(batch.driving))
        return (driving.keypoints - warp.points(moved.keypoints)).abs().mean()

    def _warp_loss(self, driving: Tensor, generated: Generated) -> Tensor:
        """Return the mean differences of features, summed over levels; their gradient reaches only the flow."""
        motion = generated.motion
        with torch.no_grad():
            wanted = self.inpainting.encode(driving)
        terms = []
        for level, (found, target) in enumerate(zip(generated.features, wanted, strict=True)):
            shown = self.inpainting.occlusion(motion, level, found).detach()
            moved = warped(found.detach(), motion.deformation)
            terms.append(((moved - single(target)) * shown).abs().mean())
        return torch.stack(terms).sum()

    def _background_loss(self, batch: TrainingBatch, there: Tensor) -> Tensor:
        assert self.background is not None
        back: Tensor = self.background(batch.driving, batch.source)
        with full_precision(there):
            return (torch.eye(3, device=there.device) - there @ back).abs().mean()


class AvdPhase(nn.Module):
    """Computes the loss of the network of animation via disentanglement, with a trained keypoint detector.

    The driving keypoints are stretched, as if they had another shape; the network is to restore them with the shape of
    the source, a frame of the same clip.
    """

    def __init__(self, keypoint_detector: KeypointDetector, avd: AvdNetwork, params: AvdTrainParams) -> None:
        super().__init__()
        self.keypoint_detector = keypoint_detector.requires_grad_(False)
        self.avd = avd
        self._params = params

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except of the keypoint detector, whose statistics do not change."""
        super().train(mode)
        self.keypoint_detector.eval()
        return self

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        with torch.no_grad():
            source: Motion = self.keypoint_detector(batch.source)
            driving: Motion = self.keypoint_detector(batch.driving)
            stretch = (
                1 + (2 * torch.rand(len(driving), 1, 2, device=batch.source.device) - 1) * self._params.random_scale
            )
        found: Motion = self.avd(source, Motion(driving.keypoints * stretch))
        loss = (single(found.keypoints) - driving.keypoints).abs().mean()
        return PhaseResult({"rec_kp": self._params.lambda_shift * loss})


def avd_phases(
    keypoint_detector: KeypointDetector, avd: AvdNetwork | None, params: AvdTrainParams
) -> list[TrainingPhase]:
    """Return the phases of `--stage avd`. Raises UsageError if the model does not have the network."""
    if avd is None:
        raise UsageError("this preset has no avd_network_params", "Leave out --stage, or add the section.")
    optimiser = torch.optim.Adam(avd.parameters(), lr=params.lr, betas=BETAS)
    return [TrainingPhase("avd", AvdPhase(keypoint_detector, avd, params), {"optimizer_avd": optimiser})]


def phases(
    keypoint_detector: KeypointDetector,
    dense_motion: DenseMotionNetwork,
    inpainting: InpaintingNetwork,
    background: BackgroundPredictor | None,
    params: TrainParams,
    perceptual: PerceptualNetwork | None,
) -> list[TrainingPhase]:
    """See `fommctl.api.training.TrainableBackend.training`."""
    optimiser = _adam(params, (inpainting, None), (dense_motion, params.clip), (keypoint_detector, params.clip))
    optimisers: dict[str, torch.optim.Optimizer] = {"optimizer_generator": optimiser}
    if background is not None:
        optimisers["optimizer_bg_predictor"] = _adam(params, (background, params.clip))
    module = TpsPhase(keypoint_detector, dense_motion, inpainting, background, params, perceptual)
    return [TrainingPhase("generator", module, optimisers)]


def _adam(params: TrainParams, *networks: tuple[nn.Module, float | None]) -> torch.optim.Adam:
    groups = [
        {"params": list(network.parameters()), "limit": limit, "limit_norm": math.inf} for network, limit in networks
    ]
    return torch.optim.Adam(groups, lr=params.lr_generator, betas=BETAS, weight_decay=params.weight_decay)


def _view(batch: TrainingBatch, source: Motion, driving: Motion, generated: Generated) -> TrainingView:
    return TrainingView(
        batch.source,
        batch.driving,
        generated.prediction.detach(),
        source.keypoints.detach(),
        driving.keypoints.detach(),
        generated.deformed.detach(),
        generated.motion.contributions.detach(),
        generated.motion.occlusions[-1].detach(),
    )
