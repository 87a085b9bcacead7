"""FOMM's training step (Siarohin et al. 2019, section 3.4), as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fommctl.api import UsageError
from fommctl.api.blocks import (
    Generated,
    Generator,
    KeypointDetector,
    Motion,
    MultiScaleDiscriminator,
    equivariance_losses,
    resize_map,
)
from fommctl.api.training import (
    ImagePyramid,
    PerceptualNetwork,
    PhaseResult,
    TrainingBatch,
    TrainingPhase,
    TrainingView,
    discriminator_loss,
    feature_matching_loss,
    focus_loss,
    generator_adversarial_loss,
    guidance_loss,
    likeness_loss,
    perceptual_loss,
    pixel_loss,
    revealed_loss,
    span_loss,
)

if TYPE_CHECKING:
    from fommctl.api.training import GuidanceParams
    from fommctl_fomm.sections import LossWeights, TrainParams

BETAS = (0.5, 0.999)
"""Adam's betas, as published."""


class GeneratorPhase(nn.Module):
    """Computes the losses of generator and keypoint detector."""

    def __init__(
        self,
        keypoint_detector: KeypointDetector,
        generator: Generator,
        discriminator: MultiScaleDiscriminator | None,
        params: TrainParams,
        perceptual: PerceptualNetwork | None,
    ) -> None:
        super().__init__()
        self.keypoint_detector = keypoint_detector
        self.generator = generator
        self.perceptual = perceptual
        self.pyramid = ImagePyramid(params.scales, generator.num_channels)
        self._params = params
        # A tuple, so that it is not a submodule: it does not learn in this phase.
        self._discriminators = (discriminator,)
        held = {keypoint_detector: not params.lr_kp_detector, generator.dense_motion_network: params.hold_dense_motion}
        for network, is_held in held.items():
            network.requires_grad_(not is_held)
        # A tuple, so that they are not registered as submodules a second time.
        self._held = tuple(network for network, is_held in held.items() if is_held)

    def train(self, mode: bool = True) -> GeneratorPhase:
        """Set the training mode, except of frozen networks, whose statistics do not change either."""
        super().train(mode)
        for network in self._held:
            network.eval()
        return self

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        source: Motion = self.keypoint_detector(batch.source)
        driving: Motion = self.keypoint_detector(batch.driving)
        generated: Generated = self.generator(batch.source, source, driving)
        real, predicted = self.pyramid(batch.driving), self.pyramid(generated.prediction)
        weights = self._params.loss_weights
        losses: dict[str, Tensor] = {}
        if self.perceptual is not None and any(weights.perceptual):
            scales = self._params.perceptual_scales or self._params.scales
            compared = {scale: predicted[scale] for scale in scales}
            losses["perceptual"] = perceptual_loss(self.perceptual, weights.perceptual, compared, real)
        if weights.pixel:
            losses["pixel"] = weights.pixel * pixel_loss(predicted, real)
        if weights.warped:
            losses["warped"] = weights.warped * self._warped_loss(generated, batch)
        if weights.revealed:
            losses["revealed"] = weights.revealed * revealed_loss(
                generated.prediction, batch.driving, generated.deformed
            )
        losses |= self._adversarial_losses(predicted, real, driving, weights)
        losses |= self._equivariance_losses(batch, driving, weights)
        if weights.likeness:
            guidance = self._params.guidance
            spans = () if guidance is None else guidance.spans or ()
            found = self._keypoints_of(generated.prediction)
            losses["likeness"] = weights.likeness * likeness_loss(found, driving.keypoints, spans)
        losses |= self._guided_losses(batch, source, driving, generated)
        return PhaseResult(losses, (predicted, real, driving.keypoints), _view(batch, source, driving, generated))

    def _adversarial_losses(
        self, predicted: dict[float, Tensor], real: dict[float, Tensor], driving: Motion, weights: LossWeights
    ) -> dict[str, Tensor]:
        (discriminator,) = self._discriminators
        if not weights.generator_gan or discriminator is None:
            return {}
        keypoints = driving.keypoints.detach()
        of_predicted = discriminator(predicted, keypoints)
        of_real = discriminator(real, keypoints)
        losses = {"gen_gan": weights.generator_gan * generator_adversarial_loss(of_predicted)}
        if any(weights.feature_matching):
            losses["feature_matching"] = feature_matching_loss(of_real, of_predicted, weights.feature_matching)
        return losses

    def _equivariance_losses(self, batch: TrainingBatch, driving: Motion, weights: LossWeights) -> dict[str, Tensor]:
        if not (weights.equivariance_value or weights.equivariance_jacobian):
            return {}
        frames = batch.transform.warp_frames(batch.driving, align_corners=self.generator.align_corners)
        value, jacobian = equivariance_losses(driving, self.keypoint_detector(frames), batch.transform)
        losses = {}
        if weights.equivariance_value:
            losses["equivariance_value"] = weights.equivariance_value * value
        if weights.equivariance_jacobian and driving.jacobians is not None:
            losses["equivariance_jacobian"] = weights.equivariance_jacobian * jacobian
        return losses

    def _keypoints_of(self, frames: Tensor) -> Tensor:
        """Detect keypoints without gradients for the detector's weights and without updating its statistics."""
        detector = self.keypoint_detector
        state = {name: values.detach() for name, values in detector.named_parameters()}
        state |= {name: values.clone() for name, values in detector.named_buffers()}
        found: Motion = torch.func.functional_call(detector, state, (frames,))
        return found.keypoints

    def _warped_loss(self, generated: Generated, batch: TrainingBatch) -> Tensor:
        height, width = generated.motion.deformation.shape[1:3]
        warped, wanted = (resize_map(frames, height, width) for frames in (generated.deformed, batch.driving))
        difference = (warped - wanted).abs()
        # Occluded places cannot be warped from the source.
        occlusion = generated.motion.occlusion
        return (difference if occlusion is None else difference * occlusion.detach()).mean()

    def _guided_losses(
        self, batch: TrainingBatch, source: Motion, driving: Motion, generated: Generated
    ) -> dict[str, Tensor]:
        weights, guidance = self._params.loss_weights, self._params.guidance
        if guidance is None or batch.source_landmarks is None or batch.driving_landmarks is None:
            return {}
        losses = {}
        pairs = ((source.keypoints, batch.source_landmarks), (driving.keypoints, batch.driving_landmarks))
        if weights.guidance:
            found = [guidance_loss(keypoints, marks, guidance.points) for keypoints, marks in pairs]
            losses["guidance"] = weights.guidance * torch.stack(found).mean()
        if weights.spans:
            found = [span_loss(keypoints, marks, guidance.points, guidance.spans or ()) for keypoints, marks in pairs]
            losses["spans"] = weights.spans * torch.stack(found).mean()
        if weights.focus:
            focused = focus_loss(
                generated.prediction,
                batch.driving,
                batch.driving_landmarks,
                guidance.focus_points or guidance.points,
                guidance.focus_deviation,
            )
            losses["focus"] = weights.focus * focused
        return losses


class DiscriminatorPhase(nn.Module):
    """Computes the losses of the discriminator, for predictions made before the generator's step."""

    def __init__(self, discriminator: MultiScaleDiscriminator, params: TrainParams) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._weight = params.loss_weights.discriminator_gan

    def forward(self, batch: TrainingBatch, generated: Any) -> PhaseResult:
        predicted, real, keypoints = generated
        detached = {scale: frames.detach() for scale, frames in predicted.items()}
        of_predicted = self.discriminator(detached, keypoints.detach())
        of_real = self.discriminator(real, keypoints.detach())
        return PhaseResult({"disc_gan": self._weight * discriminator_loss(of_real, of_predicted)})


def phases(
    keypoint_detector: KeypointDetector,
    generator: Generator,
    discriminator: MultiScaleDiscriminator | None,
    params: TrainParams,
    perceptual: PerceptualNetwork | None,
) -> list[TrainingPhase]:
    """See `fommctl.api.training.TrainableBackend.training`."""
    _check(keypoint_detector, discriminator, params)
    first = TrainingPhase(
        "generator",
        GeneratorPhase(keypoint_detector, generator, discriminator, params, perceptual),
        {
            "optimizer_generator": _adam(generator, params.lr_generator),
            "optimizer_kp_detector": _adam(keypoint_detector, params.lr_kp_detector),
        },
    )
    if discriminator is None or not params.loss_weights.generator_gan:
        return [first]
    optimisers = {"optimizer_discriminator": _adam(discriminator, params.lr_discriminator)}
    return [first, TrainingPhase("discriminator", DiscriminatorPhase(discriminator, params), optimisers)]


def _check(
    keypoint_detector: KeypointDetector, discriminator: MultiScaleDiscriminator | None, params: TrainParams
) -> None:
    weights = params.loss_weights
    if weights.generator_gan and discriminator is None:
        raise UsageError(
            "the adversarial loss needs a discriminator, which this preset does not have",
            "Add model_params.discriminator_params, or set train_params.loss_weights.generator_gan=0.",
        )
    if weights.generator_gan and discriminator is not None:
        missing = [scale for scale in discriminator.scales if scale not in params.scales]
        blocks = {len(each.down_blocks) for each in discriminator.discs.values()}  # type: ignore[arg-type]
        if missing:
            raise UsageError(
                f"the discriminator uses the scale {missing[0]}, which is not in train_params.scales",
                "Add it to train_params.scales.",
            )
        if any(weights.feature_matching) and blocks != {len(weights.feature_matching)}:
            raise UsageError(
                f"feature_matching has {len(weights.feature_matching)} weights for {max(blocks)} blocks",
                "Give one weight per block of the discriminator.",
            )
    for scale in params.perceptual_scales or ():
        if scale not in params.scales:
            raise UsageError(f"perceptual_scales has {scale}, which is not in scales", "Add it to train_params.scales.")
    if (weights.guidance or weights.spans or weights.focus) and params.guidance is None:
        raise UsageError(
            "the losses guidance, spans and focus need train_params.guidance",
            "Set its detector and points.",
        )
    if params.guidance is not None:
        _check_guidance(params.guidance, keypoint_detector, spans=bool(weights.spans))


def _check_guidance(guidance: GuidanceParams, keypoint_detector: KeypointDetector, *, spans: bool) -> None:
    last = max((number for span in guidance.spans or () for number in span), default=None)
    if spans and last is None:
        raise UsageError("the loss spans needs train_params.guidance.spans", "List pairs of its points.")
    if last is not None and last >= len(guidance.points):
        raise UsageError(
            f"train_params.guidance.spans contains point {last}, but there are only {len(guidance.points)}",
            "Points are numbered from 0.",
        )
    if len(guidance.points) > keypoint_detector.kp.out_channels:
        raise UsageError(
            f"{len(guidance.points)} points cannot guide {keypoint_detector.kp.out_channels} keypoints",
            "Give at most one point per keypoint.",
        )


def _adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS)


def _view(batch: TrainingBatch, source: Motion, driving: Motion, generated: Generated) -> TrainingView:
    occlusion = generated.motion.occlusion
    return TrainingView(
        batch.source,
        batch.driving,
        generated.prediction.detach(),
        source.keypoints.detach(),
        driving.keypoints.detach(),
        generated.deformed.detach(),
        generated.motion.mask.detach(),
        None if occlusion is None else occlusion.detach(),
    )
