"""Monkey-Net's configuration in the published schema, with the defaults of the published constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, PlainValidator, Strict, model_validator
from pydantic_core import PydanticCustomError

from fommctl.api.schema import (
    Blocks,
    Count,
    Expansion,
    Maximum,
    PairParams,
    Params,
    Positive,
    ScaleFactor,
    TransferRules,
    Weight,
    Weights,
)
from fommctl.api.training import BaseTrainParams, DatasetParams


def _kp_variance(value: Any) -> str | float:
    if value in ("matrix", "single"):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise PydanticCustomError("kp_variance", "Input should be 'matrix', 'single' or a number above 0")
    return float(value)


def _norm_const(value: Any) -> str | float:
    if value == "sum":
        return "sum"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise PydanticCustomError("norm_const", "Input should be 'sum' or a number above 0")
    return float(value)


class CommonParams(Params):
    """Parameters shared by all networks."""

    num_kp: Annotated[int, Field(ge=1, le=1000)]
    num_channels: Annotated[int, Field(ge=1, le=16)]
    kp_variance: Annotated[str | float, PlainValidator(_kp_variance)]
    """Shape of the heatmaps: `matrix` for a covariance matrix per keypoint, `single` for a variance per keypoint, or a
    fixed variance."""
    align_corners: bool = True
    """Ours: whether -1 and 1 are the centres of the corner pixels (true, as the published weights were trained) or
    their outer edges (what the published code does on a current torch)."""


class KeypointDetectorParams(Params):
    """The keypoint detector (Siarohin et al. 2019, Monkey-Net, section 3.2)."""

    temperature: Annotated[float, Field(gt=0)]
    """Divides the logits of the heatmaps before their softmax."""
    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    scale_factor: ScaleFactor = 1.0
    clip_variance: Annotated[float, Field(gt=0)] | None = None
    """Least variance of a covariance matrix along any axis; smaller matrices are scaled up."""


class KeypointEmbeddingParams(Params):
    """The channels that represent each keypoint to a network."""

    use_heatmap: bool = True
    use_difference: bool = False
    """The offset from driving to source keypoint, two channels."""
    use_deformed_source_image: bool = False
    """The source shifted by that offset."""
    heatmap_type: Literal["gaussian", "difference"] = "gaussian"
    """The driving heatmaps, or their difference from the source's."""
    norm_const: Annotated[str | float, PlainValidator(_norm_const)] = "sum"
    """Divisor of the heatmaps: a number, or `sum` for their sum."""

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if not (self.use_heatmap or self.use_difference or self.use_deformed_source_image):
            raise PydanticCustomError("embedding", "Input should use a heatmap, a difference or a deformed image")
        return self


class ScaledEmbeddingParams(KeypointEmbeddingParams):
    """A keypoint embedding with its own resolution."""

    scale_factor: ScaleFactor = 1.0
    add_bg_feature_map: bool = False
    """Add channels for a static background before those of the keypoints."""


class DenseMotionParams(Params):
    """The dense motion network (Monkey-Net, section 3.3)."""

    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    use_mask: bool
    """Estimate a mask that weights the keypoints' shifts."""
    use_correction: bool
    """Estimate a residual flow and add it."""
    mask_embedding_params: KeypointEmbeddingParams
    bg_init: float = 2.0
    """Initial bias of the mask's background."""
    num_group_blocks: Count = 0
    """Number of 1x1 convolutions before the hourglass, grouped by keypoint."""
    scale_factor: ScaleFactor = 1.0

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if not (self.use_mask or self.use_correction):
            raise PydanticCustomError("dense_motion", "Input should have use_mask, use_correction or both")
        return self


class GeneratorParams(Params):
    """The generator (Monkey-Net, section 3.4)."""

    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    num_refinement_blocks: Annotated[int, Field(ge=0, le=100)]
    interpolation_mode: Literal["nearest", "trilinear"] = "nearest"
    """Interpolation that resizes flow and keypoint embedding to the features; within a frame, trilinear is bilinear."""
    dense_motion_params: DenseMotionParams | None = None
    """The dense motion network; None for no warping."""
    kp_embedding_params: ScaledEmbeddingParams | None = None
    """The decoder's keypoint embedding; None for a decoder without keypoints."""


class DiscriminatorParams(Params):
    """The discriminator, used only in training."""

    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_blocks: Blocks = 4
    scale_factor: ScaleFactor = 1.0
    kp_embedding_params: KeypointEmbeddingParams | None = None
    """The keypoint embedding; None for a discriminator without keypoints."""


class MonkeyNetParams(Params):
    """`model_params` of a Monkey-Net preset."""

    common_params: CommonParams
    kp_detector_params: KeypointDetectorParams
    generator_params: GeneratorParams
    discriminator_params: DiscriminatorParams | None = None


RATES = ("lr_generator", "lr_discriminator", "lr_kp_detector")


class MonkeyNetDatasetParams(DatasetParams):
    """`dataset_params`, with frames of 64 pixels by default, as in published files without `frame_shape`."""

    frame_shape: Annotated[tuple[Positive, Positive, Positive], Strict(False)] = (64, 64, 3)


class LossWeights(Params):
    """The weight of each loss; 0 leaves it out (Monkey-Net, section 3.5)."""

    reconstruction: Weights = (10.0, 10.0, 10.0, 10.0, 1.0)
    """Weights of the mean absolute differences of the frames, then of the discriminator's features after each block."""
    reconstruction_deformed: Weight = 0.0
    """Weight of the mean absolute difference between warped source and driving frame."""
    generator_gan: Weight = 1.0
    discriminator_gan: Weight = 1.0


class TrainParams(BaseTrainParams):
    """Monkey-Net's training parameters.

    Published files have one rate `lr` for all three networks, and the number of epochs between checkpoints in
    `log_params.cpk_freq_epoch`; `log_params.log_freq_iter` is ignored.
    """

    unused: ClassVar[tuple[str, ...]] = ("transform_params",)
    detach_kp_generator: bool = False
    """Stop the keypoints' gradient through the generator; that through the discriminator remains."""
    detach_kp_discriminator: bool = True
    """Stop the keypoints' gradient of the discriminator's own loss."""
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
    """Reconstruction of test clips."""

    num_videos: Positive | None = None
    """Number of videos to use; None for all."""
    format: str = ".gif"


class NormalizationParams(Params):
    """Transfer of the driving motion to the source."""

    movement_mult: bool = False
    """Scale the motion by the ratio of the subjects' sizes."""
    move_location: bool = True
    """Use relative motion; False for absolute."""
    adapt_variance: bool = False
    """Change the covariances as the driving ones have changed since the first frame."""
    clip_mean: bool = False
    """Keep keypoints inside the frame."""


class TransferParams(PairParams):
    """Animation of pairs of clips."""

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
    """The recurrent network that predicts keypoints."""

    num_features: Positive = 1024
    num_layers: Positive = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PredictionParams(Params):
    """The published image-to-video prediction: not supported, but accepted so that published files load."""

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
