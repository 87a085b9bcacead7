"""TPSMM's preset sections in the published schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from fommctl.api.schema import Count, Params, Positive, Scales, Weight, Weights
from fommctl.api.training import BaseTrainParams, DatasetParams

Probability = Annotated[float, Field(ge=0, lt=1)]


class TpsDatasetParams(DatasetParams):
    """`dataset_params`; an empty `frame_shape`, as in published files, means 256 pixels."""

    @model_validator(mode="before")
    @classmethod
    def _empty_shape(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "frame_shape" in data and data["frame_shape"] is None:
            return {key: value for key, value in data.items() if key != "frame_shape"}
        return data


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out (Zhao and Zhang 2022, section 3.6)."""

    perceptual: Weights = (10.0, 10.0, 10.0, 10.0, 10.0)
    """Weights of the five VGG-19 layers; if all are zero, the perceptual network is not loaded."""
    equivariance_value: Weight = 10.0
    warp_loss: Weight = 10.0
    """Weight of the difference between the source's warped features and the driving frame's, at visible positions."""
    bg: Weight = 10.0
    """Weight of the distance between the background's motion and the inverse of its reverse motion."""
    pixel: Weight = 0.0
    """Ours: mean absolute difference between prediction and driving frame, at each scale."""


class TrainParams(BaseTrainParams):
    """TPSMM's training parameters."""

    unused: ClassVar[tuple[str, ...]] = ("lr_discriminator", "lr_kp_detector")
    scales: Scales = (1, 0.5, 0.25, 0.125)
    """Scales of the image pyramid that the losses compare, relative to the frame."""
    dropout_epoch: Count = 35
    """Number of epochs in which splines are left out at random."""
    dropout_startp: Probability = 0.0
    """Initial probability of leaving out a spline; it rises by `dropout_maxp` every `dropout_inc_epoch` epochs."""
    dropout_maxp: Probability = 0.5
    """Largest probability of leaving out a spline."""
    dropout_inc_epoch: Positive = 10
    bg_start: Count = 0
    """First epoch in which the background's motion is predicted."""
    weight_decay: Weight = 1e-4
    clip: Annotated[float, Field(gt=0)] = 10.0
    """Ours, fixed at 10 in the published code: largest absolute gradient of a weight, except in the inpainting
    network."""
    loss_weights: LossWeights = LossWeights()
    perceptual_network: Literal["vgg19", "efficientnet-lite0", "none"] = "vgg19"
    """Ours: the network whose features the perceptual loss compares."""

    @property
    def features(self) -> str | None:
        return self.perceptual_network if any(self.loss_weights.perceptual) else None


class AvdTrainParams(BaseTrainParams):
    """Training parameters of the network of animation via disentanglement, `--stage avd`, after all others."""

    unused: ClassVar[tuple[str, ...]] = (
        "lr_generator",
        "lr_discriminator",
        "lr_kp_detector",
        "transform_params",
        "ema_decay",
    )
    dataloader_workers: Count = 0
    """Ignored; accepted so that published files load. Use --workers."""
    lr: Weight = 1e-3
    lambda_shift: Weight = 1.0
    """Weight of the distance between keypoints."""
    lambda_affine: Weight = 1.0
    """Ignored; accepted so that published files load."""
    random_scale: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Largest relative stretch of the driving keypoints, drawn separately for x and y."""


SECTIONS: Mapping[str, type[BaseModel]] = {
    "dataset_params": TpsDatasetParams,
    "train_params": TrainParams,
    "train_avd_params": AvdTrainParams,
}
