"""How pictures of post-production are read and written, as options say it; a command's help needs nothing heavier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnNan = Literal["black", "fail"]
"""The treatment of pixels of NaN or infinity."""
OnGap = Literal["hold", "black", "fail"]
"""The substitute for a picture that is missing in a sequence."""
Compression = Literal["zip", "zips", "piz", "dwaa", "none"]
"""Compression of OpenEXR files."""
ExrType = Literal["half", "float"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How numbered pictures, and pictures of more than 8 bits, are read."""

    space: str | None = None
    """Name or role of their colour space; None: what the file says."""
    config: str | None = None
    """An OCIO configuration; None: that of $OCIO, or the built-in one."""
    view: str | None = None
    """DISPLAY/VIEW through which a model sees them; None: see `colourspaces.DisplayTransform`."""
    layer: str | None = None
    """The layer of an OpenEXR file; None for the main one."""
    nan: OnNan = "black"
    """The treatment of NaN and infinity."""
    gap: OnGap = "hold"
    """The substitute for a picture that is missing in a sequence."""
    flag: str = "--source-space"
    """The option that names the space, for messages."""


PLAIN = ReadOptions()
