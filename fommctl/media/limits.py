"""How large a picture may be; every reader of pictures asks before it decodes."""

from __future__ import annotations

from fommctl import machine
from fommctl.errors import InputError

MAX_SIDE = 16384
"""Pixels of a side of a picture."""
MAX_PIXELS = 200_000_000
"""The most pixels of a picture: 16384 x 12207. The largest sensors have 150 megapixels, 8K video has 33. Reading a
picture of this size takes about 2 GB for some seconds."""
BYTES_A_PIXEL = 56
"""Memory for a source of plates: its numbers, the frame in hand, the one that is being written, matte and map."""
SMALLER = f"Scale it down first; at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 1_000_000} megapixels are read."
"""The hint where a picture is too large."""


def check_size(name: str, width: int, height: int, *, strip: bool = False) -> None:
    """Refuse what would fill the memory, before any of it is decoded; raises InputError.

    strip: the picture may be as wide as it likes where square frames stand side by side in it.
    """
    frames = width // height if strip and height and width % height == 0 else 1
    if width > MAX_SIDE * frames or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{name} is too large: {width} x {height} pixels", SMALLER)


def check_memory(name: str, width: int, height: int, needed: int | None = None) -> None:
    """Refuse a source whose plates the memory cannot hold; raises InputError.

    needed: bytes; None: as much as a picture of this size takes that is not read yet.
    """
    free = [size for size in (machine.memory()[1], machine.memory_limit()) if size is not None]
    needed = width * height * BYTES_A_PIXEL if needed is None else needed
    if needed > 2**30 and free and needed > min(free):
        need, there = (f"{size / 2**30:.1f} GB" for size in (needed, min(free)))
        raise InputError(
            f"{name}: {width} x {height} pixels need about {need} of memory, and {there} are free",
            "Scale it down, crop it, or render it on a machine with more memory.",
        )
