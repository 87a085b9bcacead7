"""Building blocks of networks for backend plugins; importing this module imports torch."""

from fommctl.networks.dense_motion import (
    DenseMotion,
    DenseMotionNetwork,
    deform_by_parts,
    keypoint_heatmaps,
    sparse_motions,
)
from fommctl.networks.discriminator import Discriminator, MultiScaleDiscriminator
from fommctl.networks.equivariance import ThinPlateTransform, equivariance_losses
from fommctl.networks.generator import Generated, Generator
from fommctl.networks.grids import between_borders, gaussians, identity_grid, resize_grid, resize_map, sample
from fommctl.networks.inference.convolutions import Numerics, folded, weight_and_bias
from fommctl.networks.inference.devices import exact_convolutions
from fommctl.networks.inference.engine import DTYPES, FastRenderer, GraphedRenderer
from fommctl.networks.inference.motion import downsample_at, neighbours, step_at, weighted_rows
from fommctl.networks.inference.networks import LARGEST_TENSOR, FastHourglass, FastResidualBlock, FastUpsampling
from fommctl.networks.keypoints import KeypointDetector, motion_from_maps, soft_argmax
from fommctl.networks.layers import (
    AntiAliasDownsample,
    Decoder,
    DownBlock,
    Encoder,
    Hourglass,
    NearestDownsample,
    PlainRenderer,
    PlainSource,
    ResidualBlock,
    SameBlock,
    UpBlock,
    full_precision,
    single,
)
from fommctl.networks.motion import Motion, MotionParts, Smoother
from fommctl.networks.transfer import hull_area, inverse, movement_scale, relative

__all__ = [
    "DTYPES",
    "LARGEST_TENSOR",
    "AntiAliasDownsample",
    "Decoder",
    "DenseMotion",
    "DenseMotionNetwork",
    "Discriminator",
    "DownBlock",
    "Encoder",
    "FastHourglass",
    "FastRenderer",
    "FastResidualBlock",
    "FastUpsampling",
    "Generated",
    "Generator",
    "GraphedRenderer",
    "Hourglass",
    "KeypointDetector",
    "Motion",
    "MotionParts",
    "MultiScaleDiscriminator",
    "NearestDownsample",
    "Numerics",
    "PlainRenderer",
    "PlainSource",
    "ResidualBlock",
    "SameBlock",
    "Smoother",
    "ThinPlateTransform",
    "UpBlock",
    "between_borders",
    "deform_by_parts",
    "downsample_at",
    "equivariance_losses",
    "exact_convolutions",
    "folded",
    "full_precision",
    "gaussians",
    "hull_area",
    "identity_grid",
    "inverse",
    "keypoint_heatmaps",
    "motion_from_maps",
    "movement_scale",
    "neighbours",
    "relative",
    "resize_grid",
    "resize_map",
    "sample",
    "single",
    "soft_argmax",
    "sparse_motions",
    "step_at",
    "weight_and_bias",
    "weighted_rows",
]
