"""The training step of TPSMM (Zhao and Zhang 2022, section 3.6), as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
from fommctl_tpsmm.encoders import BackgroundPredictor, KeypointDetector
from fommctl_tpsmm.inpainting import InpaintingNetwork, Painted, warped
from fommctl_tpsmm.motion import DenseMotionNetwork
from fommctl_tpsmm.sections import TrainParams
from fommctl_tpsmm.splines import RandomWarp

BETAS = (0.5, 0.999)
"""Adam's betas, as published."""


class ClippingAdam(torch.optim.Adam):
    """Adam whose groups of parameters may have a `limit`: the largest gradient of any weight before a step."""

    def step(self, closure: Any = None) -> Any:
        """Scale the gradients of each group with a limit down to it, then step."""
        for group in self.param_groups:
            if group["limit"] is not None:
                nn.utils.clip_grad_norm_(group["params"], group["limit"], norm_type=float("inf"))
        return super().step(closure)

    @property
    def steps(self) -> int:
        """How many steps were taken, those of a run that goes on included."""
        return max((int(state["step"]) for state in self.state.values()), default=0)


class TpsPhase(nn.Module):
    """Losses of all networks."""

    def __init__(
        self,
        keypoint_detector: KeypointDetector,
        dense_motion: DenseMotionNetwork,
        inpainting: InpaintingNetwork,
        background: BackgroundPredictor | None,
        params: TrainParams,
        perceptual: PerceptualNetwork | None,
        steps: Callable[[], int],
    ) -> None:
        """steps: how many were taken so far."""
        super().__init__()
        self.keypoint_detector = keypoint_detector
        self.dense_motion = dense_motion
        self.inpainting = inpainting
        self.background = background
        self.perceptual = perceptual
        self.pyramid = ImagePyramid(params.scales, inpainting.num_channels)
        self._params = params
        self._steps = steps

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        params, weights = self._params, self._params.loss_weights
        epoch = self._steps() // params.steps_per_epoch
        source: Motion = self.keypoint_detector(batch.source)
        driving: Motion = self.keypoint_detector(batch.driving)
        background = None
        if self.background is not None and epoch >= params.bg_start:
            background = self.background(batch.source, batch.driving)
        kept = self._kept(batch.source, epoch)
        motion = self.dense_motion(batch.source, source, driving, background, kept)
        painted: Painted = self.inpainting(batch.source, motion)
        real, made = self.pyramid(batch.driving), self.pyramid(painted.prediction)
        losses: dict[str, Tensor] = {}
        if self.perceptual is not None and any(weights.perceptual):
            losses["perceptual"] = perceptual_loss(self.perceptual, weights.perceptual, made, real)
        if weights.pixel:
            losses["pixel"] = weights.pixel * pixel_loss(made, real)
        if weights.equivariance_value:
            losses["equivariance_value"] = weights.equivariance_value * self._equivariance(batch, driving)
        if weights.warp_loss:
            losses["warp_loss"] = weights.warp_loss * self._warp_loss(batch.driving, painted)
        if weights.bg and background is not None:
            losses["bg"] = weights.bg * self._background_loss(batch, background)
        return PhaseResult(losses, None, _view(batch, source, driving, painted))

    def _kept(self, like: Tensor, epoch: int) -> Tensor | None:
        """Return which warps (B, K + 1) take part in this step; None for all. The background always does."""
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

    def _warp_loss(self, driving: Tensor, painted: Painted) -> Tensor:
        """Return differences of features at each level, summed. They teach the flow alone, not what makes the
        features."""
        motion = painted.motion
        with torch.no_grad():
            wanted = self.inpainting.encode(driving)
        terms = []
        for level, (found, target) in enumerate(zip(painted.features, wanted, strict=True)):
            shown = self.inpainting.occlusion(motion, level, found).detach()
            moved = warped(found.detach(), motion.deformation)
            terms.append(((moved - single(target)) * shown).abs().mean())
        return torch.stack(terms).sum()

    def _background_loss(self, batch: TrainingBatch, there: Tensor) -> Tensor:
        assert self.background is not None
        back: Tensor = self.background(batch.driving, batch.source)
        with full_precision(there):
            return (torch.eye(3, device=there.device) - there @ back).abs().mean()


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
    module = TpsPhase(
        keypoint_detector, dense_motion, inpainting, background, params, perceptual, lambda: optimiser.steps
    )
    return [TrainingPhase("generator", module, optimisers)]


def _adam(params: TrainParams, *networks: tuple[nn.Module, float | None]) -> ClippingAdam:
    groups = [{"params": list(network.parameters()), "limit": limit} for network, limit in networks]
    return ClippingAdam(groups, lr=params.lr_generator, betas=BETAS, weight_decay=params.weight_decay)


def _view(batch: TrainingBatch, source: Motion, driving: Motion, painted: Painted) -> TrainingView:
    return TrainingView(
        batch.source,
        batch.driving,
        painted.prediction.detach(),
        source.keypoints.detach(),
        driving.keypoints.detach(),
        painted.deformed.detach(),
        painted.motion.contributions.detach(),
        painted.motion.occlusions[-1].detach(),
    )
