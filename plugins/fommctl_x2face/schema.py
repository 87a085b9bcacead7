"""`model_params` and `train_params` of X2Face."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fommctl.api.schema import Expansion, Params


class HourglassParams(Params):
    """One of the two networks; the defaults are the published ones, for frames of 256 pixels."""

    ngf: Expansion = 64
    """Channels after the first halving; they double at each level, up to eightfold."""
    num_downs: Annotated[int, Field(ge=2, le=12)] = 8
    """Halvings; the sides of the frames are multiples of 2^num_downs."""
    inner_channels: Annotated[int, Field(ge=1, le=4096)]
    """Channels of the innermost level."""


class EmbeddingParams(HourglassParams):
    """The network that looks at the source."""

    inner_channels: Annotated[int, Field(ge=1, le=4096)] = 512


class DrivingParams(HourglassParams):
    """The network that looks at the driving frame."""

    inner_channels: Annotated[int, Field(ge=1, le=4096)] = 128
    """Channels of the motion code: the published inner_nc."""


class X2FaceParams(Params):
    """`model_params` of an X2Face preset."""

    embedding_params: EmbeddingParams
    driving_params: DrivingParams
