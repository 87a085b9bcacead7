"""Building blocks of networks for backend plugins; importing this module imports torch."""

from fommctl.core.dense_motion import DenseMotion, DenseMotionNetwork, keypoint_heatmaps, sparse_motions
from fommctl.core.discriminator import MultiScaleDiscriminator
from fommctl.core.equivariance import ThinPlateTransform, equivariance_losses
from fommctl.core.fast.detector import downsample_at
from fommctl.core.fast.engine import FastRenderer
from fommctl.core.generator import Generated, Generator
from fommctl.core.grids import gaussians, identity_grid, resize_grid, resize_map, sample
from fommctl.core.keypoints import KeypointDetector, motion_from_maps, soft_argmax
from fommctl.core.layers import (
    AntiAliasDownsample,
    Decoder,
    DownBlock,
    Encoder,
    Hourglass,
    ResidualBlock,
    SameBlock,
    UpBlock,
)
from fommctl.core.transfer import Motion, hull_area, inverse, movement_scale, relative

__all__ = [
    "AntiAliasDownsample",
    "Decoder",
    "DenseMotion",
    "DenseMotionNetwork",
    "DownBlock",
    "Encoder",
    "FastRenderer",
    "Generated",
    "Generator",
    "Hourglass",
    "KeypointDetector",
    "Motion",
    "MultiScaleDiscriminator",
    "ResidualBlock",
    "SameBlock",
    "ThinPlateTransform",
    "UpBlock",
    "downsample_at",
    "equivariance_losses",
    "gaussians",
    "hull_area",
    "identity_grid",
    "inverse",
    "keypoint_heatmaps",
    "motion_from_maps",
    "movement_scale",
    "relative",
    "resize_grid",
    "resize_map",
    "sample",
    "soft_argmax",
    "sparse_motions",
]
