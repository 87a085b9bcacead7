"""`model_params` of Monkey-Net in the published schema; defaults are those of the published networks' constructors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from fommctl.api.schema import Blocks, Count, Expansion, Maximum, Params, ScaleFactor


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
    """What all networks share."""

    num_kp: Annotated[int, Field(ge=1, le=1000)]
    num_channels: Annotated[int, Field(ge=1, le=16)]
    kp_variance: Annotated[str | float, PlainValidator(_kp_variance)]
    """Shape of the heatmaps: each keypoint's own covariance matrix, its own single variance, or one number for all."""
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
    """Least extent of a covariance matrix along any axis: smaller ones are scaled up to it."""


class KeypointEmbeddingParams(Params):
    """How networks are shown keypoints: channels for each of them."""

    use_heatmap: bool = True
    use_difference: bool = False
    """The way from the driving to the source keypoint, two channels."""
    use_deformed_source_image: bool = False
    """The source shifted by that way."""
    heatmap_type: Literal["gaussian", "difference"] = "gaussian"
    """Those of the driving frame, or those less the source's."""
    norm_const: Annotated[str | float, PlainValidator(_norm_const)] = "sum"
    """What heatmaps are divided by: a number, or their sum."""

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if not (self.use_heatmap or self.use_difference or self.use_deformed_source_image):
            raise PydanticCustomError("embedding", "Input should use a heatmap, a difference or a deformed image")
        return self


class ScaledEmbeddingParams(KeypointEmbeddingParams):
    """A keypoint embedding at a resolution of its own."""

    scale_factor: ScaleFactor = 1.0
    add_bg_feature_map: bool = False
    """Channels for a background that stands still, before those of the keypoints."""


class DenseMotionParams(Params):
    """The dense motion network (Monkey-Net, section 3.3)."""

    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    use_mask: bool
    """Weigh the keypoints' shifts."""
    use_correction: bool
    """Add a flow of its own to them."""
    mask_embedding_params: KeypointEmbeddingParams
    bg_init: float = 2.0
    """First bias of the background in the mask."""
    num_group_blocks: Count = 0
    """1x1 convolutions that see each part on its own, before the hourglass."""
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
    """How flow and keypoint embedding are resized to the features; trilinear is bilinear within a frame."""
    dense_motion_params: DenseMotionParams | None = None
    """None: nothing is warped."""
    kp_embedding_params: ScaledEmbeddingParams | None = None
    """None: the decoder is not shown the keypoints."""


class DiscriminatorParams(Params):
    """The discriminator, for training alone."""

    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_blocks: Blocks = 4
    scale_factor: ScaleFactor = 1.0
    kp_embedding_params: KeypointEmbeddingParams | None = None
    """None: it is not shown the keypoints."""


class MonkeyNetParams(Params):
    """`model_params` of a Monkey-Net preset."""

    common_params: CommonParams
    kp_detector_params: KeypointDetectorParams
    generator_params: GeneratorParams
    discriminator_params: DiscriminatorParams | None = None
