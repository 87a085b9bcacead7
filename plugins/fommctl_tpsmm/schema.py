"""TPSMM's `model_params` in the published schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fommctl.api.schema import Blocks, Expansion, Maximum, Params, ScaleFactor

Bottle = Annotated[int, Field(ge=1, le=4096)]


class CommonParams(Params):
    """Parameters shared by all networks."""

    num_tps: Annotated[int, Field(ge=1, le=200)]
    """Number of thin-plate splines, with five keypoints each."""
    num_channels: Annotated[int, Field(ge=1, le=16)]
    bg: bool = False
    """Predict the motion of the background, for training and reconstruction."""
    multi_mask: bool = True
    """Estimate an occlusion map for each level of the inpainting network; False for one for all."""


class GeneratorParams(Params):
    """The inpainting network."""

    block_expansion: Expansion
    max_features: Maximum
    num_down_blocks: Annotated[int, Field(ge=1, le=8)]


class DenseMotionParams(Params):
    """The dense motion network."""

    block_expansion: Expansion
    max_features: Maximum
    num_blocks: Blocks
    scale_factor: ScaleFactor = 0.25


class AvdParams(Params):
    """The network of animation via disentanglement."""

    id_bottle_size: Bottle
    pose_bottle_size: Bottle


class TpsmmParams(Params):
    """`model_params` of a TPSMM preset."""

    common_params: CommonParams
    generator_params: GeneratorParams
    dense_motion_params: DenseMotionParams
    avd_network_params: AvdParams | None = None
