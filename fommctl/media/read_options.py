"""Options for reading and writing pictures of post-production; apart from the readers, so that --help stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnNan = Literal["black", "fail"]
"""What to do about pixels of NaN or infinity."""
OnGap = Literal["hold", "black", "fail"]
"""What to show for a picture that is missing in a sequence: the one before, black, or fail."""
Compression = Literal["zip", "zips", "piz", "dwaa", "none"]
"""Compression of OpenEXR files."""
ExrType = Literal["half", "float"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How numbered pictures, and pictures of more than 8 bits, are read."""

    space: str | None = None
    """Name or role of their colour space; None: as the file states."""
    config: str | None = None
    """An OCIO configuration; None: $OCIO, or the built-in one."""
    view: str | None = None
    """DISPLAY/VIEW through which a model sees them; None: see `colourspaces.DisplayTransform`."""
    layer: str | None = None
    """Layer of an OpenEXR file; None: the main one."""
    nan: OnNan = "black"
    gap: OnGap = "hold"
    flag: str = "--source-space"
    """The option that names the space, for messages."""


PLAIN = ReadOptions()
