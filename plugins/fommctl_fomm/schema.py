"""FOMM's `model_params` in the published schema, with the defaults of the published constructors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fommctl.api.schema import Blocks, Expansion, Maximum, Params, ScaleFactor, Scales


class CommonParams(Params):
    """Parameters shared by all networks."""

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
    """Padding of the 7x7 heads: 0 in the published weights; 3 keeps the size of the map."""


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
    blend_source: bool = False
    """Ours: a mask selects, pixel by pixel, between the warped source itself and the decoded frame."""
    # None if not given, so that older models keep their identity, and batches their finished results.
    embed_keypoints: bool | None = None
    """Ours: add heatmaps of the driving keypoints to the warped features, as in Monkey-Net."""
    dense_motion_params: DenseMotionParams


class DiscriminatorParams(Params):
    """The multi-scale discriminator, used only in training."""

    scales: Scales
    """Resolutions of its inputs, relative to the frame."""
    block_expansion: Expansion = 64
    max_features: Maximum = 512
    num_blocks: Blocks = 4
    sn: bool = False
    """Spectral normalisation."""
    use_kp: bool = False
    """Heatmaps of the keypoints as additional input channels."""


class FommParams(Params):
    """`model_params` of a FOMM preset."""

    common_params: CommonParams
    kp_detector_params: KeypointDetectorParams
    generator_params: GeneratorParams
    discriminator_params: DiscriminatorParams | None = None
