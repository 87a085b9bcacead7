"""`model_params` of FOMM in the published schema; defaults are those of the published networks' constructors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, Strict
from pydantic_core import PydanticCustomError

Expansion = Annotated[int, Field(ge=1, le=4096)]
"""Channels before the first halving of the resolution; each halving doubles them."""
Maximum = Annotated[int, Field(ge=1, le=16384)]
"""Most channels of a block."""
Blocks = Annotated[int, Field(ge=1, le=12)]


def _whole_step(value: float) -> float:
    step = 1 / value
    if abs(step - round(step)) > 0.01:
        raise PydanticCustomError("scale_factor", "Input should be 1, 0.5, 0.25 or another 1/n")
    return value


ScaleFactor = Annotated[float, Field(ge=1 / 64, le=1), AfterValidator(_whole_step)]
"""Side of what the network sees over the side of the frame."""


def _number(value: Any) -> float:
    # A whole scale stays an integer: the published name of its discriminator is the number as written.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    if not 0 < value <= 1:
        raise PydanticCustomError("scale", "Input should be more than 0 and at most 1")
    return value


class Params(BaseModel):
    """Strict, immutable, unknown keys refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class CommonParams(Params):
    """What all networks share."""

    num_kp: Annotated[int, Field(ge=1, le=1000)]
    num_channels: Annotated[int, Field(ge=1, le=16)]
    estimate_jacobian: bool = False
    """False: a zeroth-order model, keypoints without local affine maps."""
    align_corners: bool = True
    """Ours: whether -1 and 1 are the centres of the corner pixels (true, as the published weights were trained) or
    their outer edges (what the published code does on a current torch)."""


class KeypointDetectorParams(Params):
    """The keypoint detector (Siarohin et al. 2019, section 3.1)."""

    temperature: Annotated[float, Field(gt=0)]
    """Divides the logits of the heatmaps before their softmax."""
    block_expansion: Expansion
    max_features: Maximum
    scale_factor: ScaleFactor = 1.0
    num_blocks: Blocks
    single_jacobian_map: bool = False
    """One Jacobian map for all keypoints instead of one each."""
    pad: Annotated[int, Field(ge=0, le=3)] = 0
    """Padding of the 7x7 heads; 0 in the published weights, 3 keeps the size of the map."""


class DenseMotionParams(Params):
    """The dense motion network (Siarohin et al. 2019, section 3.2)."""

    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    scale_factor: ScaleFactor = 1.0


class GeneratorParams(Params):
    """The generator (Siarohin et al. 2019, section 3.3)."""

    block_expansion: Expansion
    max_features: Maximum
    num_down_blocks: Annotated[int, Field(ge=0, le=8)]
    num_bottleneck_blocks: Annotated[int, Field(ge=0, le=100)]
    estimate_occlusion_map: bool = False
    dense_motion_params: DenseMotionParams


class DiscriminatorParams(Params):
    """The multi-scale discriminator, for training alone."""

    scales: Annotated[tuple[Annotated[float, PlainValidator(_number)], ...], Strict(False), Field(min_length=1)]
    """Resolutions that are judged, relative to the frame."""
    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_blocks: Blocks = 4
    sn: bool = False
    """Spectral normalisation."""
    use_kp: bool = False
    """Heatmaps of the keypoints are further input channels."""


class FommParams(Params):
    """`model_params` of a FOMM preset."""

    common_params: CommonParams
    kp_detector_params: KeypointDetectorParams
    generator_params: GeneratorParams
    discriminator_params: DiscriminatorParams | None = None
