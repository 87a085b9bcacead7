"""LivePortrait's `model_params` in the published schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from fommctl.api.schema import Blocks, Expansion, Maximum, Params

Widths = Annotated[tuple[Maximum, ...], Strict(False)]
Levels = Annotated[int, Field(ge=1, le=6)]


class AppearanceParams(Params):
    """The appearance network F."""

    image_channel: Literal[3] = 3
    block_expansion: Expansion = 64
    num_down_blocks: Levels = 2
    max_features: Maximum = 512
    reshape_channel: Expansion = 32
    reshape_depth: Expansion = 16
    num_resblocks: Blocks = 6


class MotionParams(Params):
    """The motion network M."""

    num_kp: Literal[21] = 21
    backbone: Literal["convnextv2_tiny"] = "convnextv2_tiny"
    depths: Annotated[tuple[Blocks, ...], Strict(False), Field(min_length=4, max_length=4)] = (3, 3, 9, 3)
    """Ours: number of blocks in each stage; the default is that of the backbone."""
    widths: Annotated[Widths, Field(min_length=4, max_length=4)] = (96, 192, 384, 768)
    """Ours: channels of each stage; the default is that of the backbone."""


class DenseMotionParams(Params):
    """The network that combines the motions of the keypoints."""

    block_expansion: Expansion = 32
    max_features: Maximum = 1024
    num_blocks: Blocks = 5
    reshape_depth: Expansion = 16
    compress: Expansion = 4


class WarpingParams(Params):
    """The warping network W."""

    num_kp: Literal[21] = 21
    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_down_blocks: Levels = 2
    reshape_channel: Expansion = 32
    estimate_occlusion_map: Literal[True] = True
    dense_motion_params: DenseMotionParams = DenseMotionParams()


class GeneratorParams(Params):
    """The generator G."""

    upscale: Annotated[int, Field(ge=1, le=4)] = 2
    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_down_blocks: Levels = 2
    hidden: Expansion = 128
    """Ours: hidden channels of SPADE."""


class CorrectorParams(Params):
    """A small network that corrects keypoints."""

    input_size: Maximum
    hidden_sizes: Widths
    output_size: Maximum


class CorrectorsParams(Params):
    """The networks that correct keypoints."""

    stitching: CorrectorParams = CorrectorParams(input_size=126, hidden_sizes=(128, 128, 64), output_size=65)
    lip: CorrectorParams = CorrectorParams(input_size=65, hidden_sizes=(128, 128, 64), output_size=63)
    eye: CorrectorParams = CorrectorParams(input_size=66, hidden_sizes=(256, 256, 128, 128, 64), output_size=63)


class LivePortraitParams(Params):
    """`model_params` of a LivePortrait preset; the published values are the defaults."""

    appearance_feature_extractor_params: AppearanceParams = AppearanceParams()
    motion_extractor_params: MotionParams = MotionParams()
    warping_module_params: WarpingParams = WarpingParams()
    spade_generator_params: GeneratorParams = GeneratorParams()
    stitching_retargeting_module_params: CorrectorsParams = CorrectorsParams()
