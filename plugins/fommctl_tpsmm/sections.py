"""Preset sections of TPSMM in the published schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from fommctl.api.schema import Count, Params, Positive, Scales, Weight, Weights
from fommctl.api.training import BaseTrainParams, DatasetParams

Probability = Annotated[float, Field(ge=0, lt=1)]


class TpsDatasetParams(DatasetParams):
    """The data set section of all backends; published files leave `frame_shape` empty, which means 256 pixels here."""

    @model_validator(mode="before")
    @classmethod
    def _empty_shape(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "frame_shape" in data and data["frame_shape"] is None:
            return {key: value for key, value in data.items() if key != "frame_shape"}
        return data


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out (Zhao and Zhang 2022, section 3.6)."""

    perceptual: Weights = (10.0, 10.0, 10.0, 10.0, 10.0)
    """One for each VGG-19 layer; all zero leaves the perceptual network out."""
    equivariance_value: Weight = 10.0
    warp_loss: Weight = 10.0
    """Weight of the differences of the warped features of the source and those of the driving frame, where they are
    shown."""
    bg: Weight = 10.0
    """Weight of the distance between the background's motion and the inverse of the motion back."""
    pixel: Weight = 0.0
    """Ours: mean absolute difference of prediction and driving frame at each scale."""


class TrainParams(BaseTrainParams):
    """The training of TPSMM."""

    unused: ClassVar[tuple[str, ...]] = ("lr_discriminator", "lr_kp_detector")
    scales: Scales = (1, 0.5, 0.25, 0.125)
    """Scales of the pyramid that the losses see, relative to the frame."""
    dropout_epoch: Count = 35
    """Epochs in which splines are left out at random."""
    dropout_startp: Probability = 0.0
    """The probability of leaving out a spline at first; it rises by `dropout_maxp` in `dropout_inc_epoch` epochs."""
    dropout_maxp: Probability = 0.5
    dropout_inc_epoch: Positive = 10
    bg_start: Count = 0
    """Epoch from which on the background may move."""
    weight_decay: Weight = 1e-4
    clip: Annotated[float, Field(gt=0)] = 10.0
    """Ours to set, published as 10: largest gradient of any weight but those of the inpainting network."""
    loss_weights: LossWeights = LossWeights()
    perceptual_network: Literal["vgg19", "efficientnet-lite0", "none"] = "vgg19"
    """Ours: whose features the perceptual loss compares."""

    @property
    def features(self) -> str | None:
        return self.perceptual_network if any(self.loss_weights.perceptual) else None


class AvdTrainParams(BaseTrainParams):
    """The training of the network of animation via disentanglement, `--stage avd`, when all else is trained."""

    unused: ClassVar[tuple[str, ...]] = (
        "lr_generator",
        "lr_discriminator",
        "lr_kp_detector",
        "transform_params",
        "ema_decay",
    )
    dataloader_workers: Count = 0
    """Read so that published files load: see --workers."""
    lr: Weight = 1e-3
    lambda_shift: Weight = 1.0
    """Weight of the distance between keypoints."""
    lambda_affine: Weight = 1.0
    """Read so that published files load: there are no affine maps here."""
    random_scale: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Driving keypoints are stretched by up to this part, in each direction by another."""


SECTIONS: Mapping[str, type[BaseModel]] = {
    "dataset_params": TpsDatasetParams,
    "train_params": TrainParams,
    "train_avd_params": AvdTrainParams,
}
