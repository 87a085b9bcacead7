"""X2Face's `model_params`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fommctl.api.schema import Expansion, Params


class HourglassParams(Params):
    """One of the two networks; the defaults are the published ones, for frames of 256 pixels."""

    ngf: Expansion = 64
    """Channels after the first downsampling, which double at each level, up to eightfold."""
    num_downs: Annotated[int, Field(ge=2, le=12)] = 8
    """Number of levels, each of which halves the resolution; sides of frames must be multiples of 2^num_downs."""
    inner_channels: Annotated[int, Field(ge=1, le=4096)]
    """Channels of the innermost level."""


class EmbeddingParams(HourglassParams):
    """The network that unwarps the source."""

    inner_channels: Annotated[int, Field(ge=1, le=4096)] = 512


class DrivingParams(HourglassParams):
    """The network that encodes driving frames."""

    inner_channels: Annotated[int, Field(ge=1, le=4096)] = 128
    """Channels of the motion code, published as inner_nc."""


class X2FaceParams(Params):
    """`model_params` of an X2Face preset."""

    embedding_params: EmbeddingParams
    driving_params: DrivingParams
