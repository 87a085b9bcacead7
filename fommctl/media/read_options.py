"""How pictures of post-production are read and written, as options say it; a command's help needs nothing heavier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnNan = Literal["black", "fail"]
"""What pixels of NaN or infinity do."""
OnGap = Literal["hold", "black", "fail"]
"""What stands in for a picture that is missing in a sequence."""
Compression = Literal["zip", "zips", "piz", "dwaa", "none"]
"""Of OpenEXR."""
ExrType = Literal["half", "float"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How numbered pictures, and pictures of more than 8 bits, are read."""

    space: str | None = None
    """Name or role of their colour space; None: what the file says."""
    config: str | None = None
    """An OCIO configuration; None: that of $OCIO, or the built-in one."""
    view: str | None = None
    """DISPLAY/VIEW through which a model sees them; None: see `colourspaces.Look`."""
    layer: str | None = None
    """Of an OpenEXR file; None: the main one."""
    nan: OnNan = "black"
    """What NaN and infinity are taken for."""
    gap: OnGap = "hold"
    """What stands in for a picture that is missing in a sequence."""
    flag: str = "--source-space"
    """The option that names the space, for messages."""


PLAIN = ReadOptions()
