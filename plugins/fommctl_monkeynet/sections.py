"""Preset sections of Monkey-Net in the published schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from fommctl.api.schema import Count, PairParams, Params, Positive, TransferRules, Weight, Weights
from fommctl.api.training import BaseTrainParams, DatasetParams

RATES = ("lr_generator", "lr_discriminator", "lr_kp_detector")


class MonkeyNetDatasetParams(DatasetParams):
    """As of all backends; published files that say nothing mean frames of 64 pixels."""

    frame_shape: Annotated[tuple[Positive, Positive, Positive], Strict(False)] = (64, 64, 3)


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out (Monkey-Net, section 3.5)."""

    reconstruction: Weights = (10.0, 10.0, 10.0, 10.0, 1.0)
    """Of the mean absolute differences of the frames and of what each block of the discriminator makes of them, one
    each."""
    reconstruction_deformed: Weight = 0.0
    """Of the mean absolute difference of the warped source and the driving frame."""
    generator_gan: Weight = 1.0
    discriminator_gan: Weight = 1.0


class TrainParams(BaseTrainParams):
    """The training of Monkey-Net.

    Published files give one rate `lr` for the three networks, and the epochs between checkpoints as
    `log_params.cpk_freq_epoch`; `log_params.log_freq_iter` has no effect here.
    """

    unused: ClassVar[tuple[str, ...]] = ("transform_params",)
    detach_kp_generator: bool = False
    """The generator's flow and features teach the keypoints nothing; the discriminator's judgement still does."""
    detach_kp_discriminator: bool = True
    """The discriminator's own loss teaches the keypoints nothing."""
    loss_weights: LossWeights = LossWeights()

    @model_validator(mode="before")
    @classmethod
    def _published_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        found = dict(data)
        if "lr" in found:
            if not found.keys().isdisjoint(RATES):
                raise PydanticCustomError("lr", f"Input should have either lr or {', '.join(RATES)}")
            found |= dict.fromkeys(RATES, found.pop("lr"))
        log_params = found.get("log_params")
        if isinstance(log_params, Mapping) and log_params.keys() <= {"log_freq_iter", "cpk_freq_epoch"}:
            del found["log_params"]
            if "cpk_freq_epoch" in log_params:
                found.setdefault("checkpoint_freq", log_params["cpk_freq_epoch"])
        return found


class ReconstructionParams(Params):
    """How test clips are reconstructed."""

    num_videos: Positive | None = None
    """None: all."""
    format: str = ".gif"


class NormalizationParams(Params):
    """How driving motion is transferred to the source."""

    movement_mult: bool = False
    """Scale the motion by the ratio of the subjects' sizes."""
    move_location: bool = True
    """Relative motion; False: absolute."""
    adapt_variance: bool = False
    """The shapes of the heatmaps change as the driving ones have since the first frame."""
    clip_mean: bool = False
    """Keep keypoints inside the frame."""


class TransferParams(PairParams):
    """How pairs of clips are animated."""

    num_pairs: Positive = 100
    format: str = ".gif"
    normalization_params: NormalizationParams = NormalizationParams()

    @property
    def rules(self) -> TransferRules:
        params = self.normalization_params
        return TransferRules(
            relative=params.move_location,
            adapt_scale=params.movement_mult,
            adapt_covariances=params.adapt_variance,
            inside=params.clip_mean,
        )


class RecurrentParams(Params):
    """The network that continues keypoints."""

    num_features: Positive = 1024
    num_layers: Positive = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PredictionParams(Params):
    """The published image-to-video prediction, which fommctl has not: read so that published files load, not used."""

    rnn_params: RecurrentParams = RecurrentParams()
    predict_variance: bool = False
    num_epochs: Count = 1000
    lr: Weight = 1e-3
    batch_size: Positive = 256
    num_frames: Positive = 32
    init_frames: Positive = 1
    train_size: Positive | None = None
    format: str = ".gif"


SECTIONS: Mapping[str, type[BaseModel]] = {
    "dataset_params": MonkeyNetDatasetParams,
    "train_params": TrainParams,
    "reconstruction_params": ReconstructionParams,
    "transfer_params": TransferParams,
    "prediction_params": PredictionParams,
}
