"""Monkey-Net's training step (Siarohin et al., CVPR 2019, section 3.5), as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fommctl.api import UsageError
from fommctl.api.blocks import Motion, single
from fommctl.api.training import PhaseResult, TrainingBatch, TrainingPhase, TrainingView

if TYPE_CHECKING:
    from fommctl_monkeynet.networks import (
        Generated,
        KeypointDiscriminator,
        MonkeyKeypointDetector,
        MotionTransferGenerator,
    )
    from fommctl_monkeynet.schema import TrainParams

BETAS = (0.5, 0.999)
"""Adam's betas, as published."""


class GeneratorPhase(nn.Module):
    """Computes the losses of generator and keypoint detector."""

    def __init__(
        self,
        keypoint_detector: MonkeyKeypointDetector,
        generator: MotionTransferGenerator,
        discriminator: KeypointDiscriminator | None,
        params: TrainParams,
    ) -> None:
        super().__init__()
        self.keypoint_detector = keypoint_detector
        self.generator = generator
        self._params = params
        # A tuple, so that it is not a submodule: it does not learn in this phase.
        self._discriminators = (discriminator,)

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        # In one batch, as published, which matters for BatchNorm.
        joined: Motion = self.keypoint_detector(torch.cat((batch.source, batch.driving)))
        count = len(batch.source)
        source, driving = joined[:count], joined[count:]
        motions = (detached(source), detached(driving)) if self._params.detach_kp_generator else (source, driving)
        generated: Generated = self.generator(batch.source, *motions)
        losses = self._losses(batch, generated, source, driving)
        outcome = generated.prediction.detach(), detached(source), detached(driving)
        return PhaseResult(losses, outcome, _view(batch, source, driving, generated))

    def _losses(self, batch: TrainingBatch, generated: Generated, source: Motion, driving: Motion) -> dict[str, Tensor]:
        (discriminator,) = self._discriminators
        weights = self._params.loss_weights
        losses: dict[str, Tensor] = {}
        if weights.reconstruction_deformed:
            difference = (generated.deformed - batch.driving).abs().mean()
            losses["reconstruction_deformed"] = weights.reconstruction_deformed * difference
        if discriminator is None:
            of_real, of_predicted = [batch.driving, batch.driving], [generated.prediction, generated.prediction]
        else:
            of_predicted = discriminator.maps(generated.prediction, source, driving)
            of_real = discriminator.maps(batch.driving, source, driving)
        pairs = zip(weights.reconstruction, of_real[:-1], of_predicted[:-1], strict=False)
        for index, (weight, real, predicted) in enumerate(pairs):
            if weight:
                name = f"reconstruction_{index}" if index else "reconstruction"
                losses[name] = weight * (single(predicted) - single(real)).abs().mean()
        if weights.generator_gan and discriminator is not None:
            losses["gen_gan"] = weights.generator_gan * (1 - single(of_predicted[-1])).square().mean()
        if weights.discriminator_gan and discriminator is not None and not self._params.detach_kp_discriminator:
            # Trains only the keypoints here, not the discriminator's weights.
            own = discriminator_loss(discriminator, batch.driving, generated.prediction.detach(), source, driving)
            losses["disc_gan_keypoints"] = weights.discriminator_gan * own
        return losses


class DiscriminatorPhase(nn.Module):
    """Computes the losses of the discriminator, for predictions made before the generator's step."""

    def __init__(self, discriminator: KeypointDiscriminator, params: TrainParams) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._weight = params.loss_weights.discriminator_gan

    def forward(self, batch: TrainingBatch, generated: Any) -> PhaseResult:
        loss = discriminator_loss(self.discriminator, batch.driving, *generated)
        return PhaseResult({"disc_gan": self._weight * loss})


def discriminator_loss(
    discriminator: KeypointDiscriminator, real: Tensor, predicted: Tensor, source: Motion, driving: Motion
) -> Tensor:
    """Return the least-squares loss (1 - D(real))^2 + D(predicted)^2 (section 3.5).

    real, predicted: frames (B, C, H, W) in [0, 1].
    """
    of_predicted = single(discriminator.maps(predicted, source, driving)[-1])
    of_real = single(discriminator.maps(real, source, driving)[-1])
    return ((1 - of_real).square() + of_predicted.square()).mean()


def detached(motion: Motion) -> Motion:
    """Return the motion without its gradient."""
    keypoints, *others = (None if part is None else part.detach() for part in motion.parts())
    assert keypoints is not None
    return Motion(keypoints, *others)


def phases(
    keypoint_detector: MonkeyKeypointDetector,
    generator: MotionTransferGenerator,
    discriminator: KeypointDiscriminator | None,
    params: TrainParams,
) -> list[TrainingPhase]:
    """See `fommctl.api.training.TrainableBackend.training`."""
    _check(discriminator, params)
    first = TrainingPhase(
        "generator",
        GeneratorPhase(keypoint_detector, generator, discriminator, params),
        {
            "optimizer_generator": _adam(generator, params.lr_generator),
            "optimizer_kp_detector": _adam(keypoint_detector, params.lr_kp_detector),
        },
    )
    if discriminator is None or not params.loss_weights.discriminator_gan:
        return [first]
    optimisers = {"optimizer_discriminator": _adam(discriminator, params.lr_discriminator)}
    return [first, TrainingPhase("discriminator", DiscriminatorPhase(discriminator, params), optimisers)]


def _check(discriminator: KeypointDiscriminator | None, params: TrainParams) -> None:
    weights = params.loss_weights
    if not any((*weights.reconstruction, weights.reconstruction_deformed, weights.generator_gan)):
        raise UsageError("all losses of the generator have weight 0", "Set train_params.loss_weights.reconstruction.")
    if discriminator is None:
        if weights.generator_gan or any(weights.reconstruction[1:]):
            raise UsageError(
                "these losses need a discriminator, which this preset does not have",
                "Add model_params.discriminator_params, or set generator_gan=0 and reconstruction=[10] in "
                "train_params.loss_weights.",
            )
        return
    blocks = len(discriminator.down_blocks)
    if any(weights.reconstruction) and len(weights.reconstruction) != blocks + 1:
        raise UsageError(
            f"train_params.loss_weights.reconstruction has {len(weights.reconstruction)} weights for the frame and "
            f"{blocks} blocks of the discriminator",
            "Give one weight for the frame and one per block of the discriminator.",
        )


def _adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS)


def _view(batch: TrainingBatch, source: Motion, driving: Motion, generated: Generated) -> TrainingView:
    return TrainingView(
        batch.source,
        batch.driving,
        generated.prediction.detach(),
        source.keypoints.detach(),
        driving.keypoints.detach(),
        generated.deformed.detach(),
        None if generated.mask is None else generated.mask.detach(),
    )
