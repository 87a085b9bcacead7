"""FOMM's section `train_params`, with the published names and defaults."""

from __future__ import annotations

from typing import Literal

from fommctl.api.schema import Params, Scales, Weight, Weights
from fommctl.api.training import BaseTrainParams, GuidanceParams


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out."""

    generator_gan: Weight = 0.0
    discriminator_gan: Weight = 1.0
    feature_matching: Weights = (10.0, 10.0, 10.0, 10.0)
    """Weights of the discriminator's blocks, one each."""
    perceptual: Weights = (10.0, 10.0, 10.0, 10.0, 10.0)
    """Weights of the five VGG-19 layers; if all are zero, the perceptual network is not loaded."""
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0
    pixel: Weight = 0.0
    """Ours: mean absolute difference between prediction and driving frame, at each scale."""
    warped: Weight = 0.0
    """Ours: mean absolute difference between warped source and driving frame, at the size of the motion field."""
    guidance: Weight = 0.0
    """Ours: distance of the keypoints from a detector's landmarks; see `GuidanceParams`."""
    # None if not given, so that older models keep their identity, and batches their finished results.
    spans: Weight | None = None
    """Ours: difference between the vectors from keypoint to keypoint and those between their landmarks, for the pairs
    in `GuidanceParams.spans`."""
    likeness: Weight | None = None
    """Ours: distance between the keypoints detected in the prediction and in the driving frame, and difference of the
    vectors between them for the pairs in `GuidanceParams.spans`. The detector's weights get no gradient from the
    prediction."""
    focus: Weight = 0.0
    """Ours: mean absolute difference between prediction and driving frame around the landmarks of `guidance`."""
    revealed: Weight = 0.0
    """Ours: mean absolute difference between prediction and driving frame times that between warped source and driving
    frame, which emphasises what the source does not show: the background behind the head, teeth, eyelids."""


class TrainParams(BaseTrainParams):
    """FOMM's training parameters."""

    scales: Scales = (1, 0.5, 0.25, 0.125)
    """Scales of the image pyramid that the losses compare, relative to the frame."""
    loss_weights: LossWeights = LossWeights()
    perceptual_network: Literal["vgg19", "efficientnet-lite0", "none"] = "vgg19"
    """Ours: the network whose features the perceptual loss compares. The published vgg19 needs a download,
    efficientnet-lite0 a package."""
    perceptual_scales: Scales | None = None
    """Ours: the subset of `scales` used by the perceptual loss; None for all."""
    guidance: GuidanceParams | None = None
    hold_dense_motion: bool | None = None
    """Ours: freeze the dense motion network's weights and statistics while the rest of the generator learns."""

    @property
    def features(self) -> str | None:
        return self.perceptual_network if any(self.loss_weights.perceptual) else None

    @property
    def landmarks(self) -> GuidanceParams | None:
        weights = self.loss_weights
        return self.guidance if weights.guidance or weights.spans or weights.focus else None


SECTIONS = {"train_params": TrainParams}
"""Schemas of the preset sections that differ from the shared ones."""
