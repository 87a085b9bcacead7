"""The section `train_params` of the First Order Motion Model, with the published names and defaults."""

from __future__ import annotations

from typing import Literal

from fommctl.api.schema import Params, Scales, Weight, Weights
from fommctl.api.training import BaseTrainParams, GuidanceParams


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out."""

    generator_gan: Weight = 0.0
    discriminator_gan: Weight = 1.0
    feature_matching: Weights = (10.0, 10.0, 10.0, 10.0)
    """One for each block of the discriminator."""
    perceptual: Weights = (10.0, 10.0, 10.0, 10.0, 10.0)
    """One for each VGG-19 layer; all zero leaves the perceptual network out."""
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0
    pixel: Weight = 0.0
    """Ours: mean absolute difference of prediction and driving frame at each scale."""
    warped: Weight = 0.0
    """Ours: mean absolute difference of the warped source and the driving frame, at the size of the motion field."""
    guidance: Weight = 0.0
    """Ours: distance of the keypoints from landmarks that a detector finds; see `GuidanceParams`."""
    # None where it is not given: models of before it keep their identity, and batches their finished results.
    spans: Weight | None = None
    """Ours: difference of the vectors between keypoints from those between their landmarks, for the pairs of
    `GuidanceParams.spans`."""
    likeness: Weight | None = None
    """Ours: distance between the keypoints that the detector finds in the prediction and in the driving frame, and
    difference of the vectors between them for the pairs of `GuidanceParams.spans`. The detector that looks at the
    prediction learns nothing by it."""
    focus: Weight = 0.0
    """Ours: mean absolute difference of prediction and driving frame around those landmarks."""
    revealed: Weight = 0.0
    """Ours: mean absolute difference of prediction and driving frame times that of the warped source and the driving
    frame: what the source does not show, such as a background behind the head, teeth and eyelids."""


class TrainParams(BaseTrainParams):
    """The training of FOMM."""

    scales: Scales = (1, 0.5, 0.25, 0.125)
    """Scales of the pyramid that the losses see, relative to the frame."""
    loss_weights: LossWeights = LossWeights()
    perceptual_network: Literal["vgg19", "efficientnet-lite0", "none"] = "vgg19"
    """Ours: whose features the perceptual loss compares. The published choice needs a download, efficientnet-lite0 a
    package."""
    perceptual_scales: Scales | None = None
    """Ours: at which of `scales` the perceptual loss compares; None for all."""
    guidance: GuidanceParams | None = None
    hold_dense_motion: bool | None = None
    """Ours: the dense motion network keeps its weights and statistics while the rest of the generator learns."""

    @property
    def features(self) -> str | None:
        return self.perceptual_network if any(self.loss_weights.perceptual) else None

    @property
    def landmarks(self) -> GuidanceParams | None:
        weights = self.loss_weights
        return self.guidance if weights.guidance or weights.spans or weights.focus else None


SECTIONS = {"train_params": TrainParams}
"""Schemas of preset sections that differ from the shared ones."""
