"""How large a picture may be; every reader of pictures asks before it decodes."""

from __future__ import annotations

from fommctl.errors import InputError

MAX_SIDE = 16384
"""Pixels of a side of a picture."""
MAX_PIXELS = 200_000_000
"""The most pixels of a picture: 16384 x 12207. The largest sensors have 150 megapixels, 8K video has 33. Reading a
picture of this size takes about 2 GB for some seconds."""
SMALLER = f"Scale it down first; at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 1_000_000} megapixels are read."
"""The hint where a picture is too large."""


def check_size(name: str, width: int, height: int, *, strip: bool = False) -> None:
    """Refuse what would fill the memory, before any of it is decoded; raises InputError.

    strip: the picture may be as wide as it likes where square frames stand side by side in it.
    """
    frames = width // height if strip and height and width % height == 0 else 1
    if width > MAX_SIDE * frames or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{name} is too large: {width} x {height} pixels", SMALLER)
