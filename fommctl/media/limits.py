"""Limits on the size of pictures, checked by every reader before it decodes."""

from __future__ import annotations

from fommctl import machine
from fommctl.errors import InputError

MAX_SIDE = 16384
"""Largest width and height of a picture, in pixels."""
MAX_PIXELS = 200_000_000
"""Most pixels of a picture: 16384 x 12207. The largest sensors have 150 megapixels, 8K video has 33. Reading a picture
of this size takes about 2 GB for some seconds."""
BYTES_A_PIXEL = 56
"""Memory per pixel of a plate as source: its numbers, the current frame, the one being written, matte and ST map."""
SMALLER = f"Scale it down first; at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 1_000_000} megapixels are read."
"""Hint for a picture that is too large."""


def check_size(name: str, width: int, height: int, *, strip: bool = False) -> None:
    """Raise InputError for a picture that is too large to decode.

    strip: a picture of square frames side by side may have any width.
    """
    frames = width // height if strip and height and width % height == 0 else 1
    if width > MAX_SIDE * frames or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{name} is too large: {width} x {height} pixels", SMALLER)


def check_memory(name: str, width: int, height: int, needed: int | None = None) -> None:
    """Raise InputError for a source whose plates do not fit into memory.

    needed: bytes; None: the estimate for a picture of this size, before it is read.
    """
    free = [size for size in (machine.memory()[1], machine.memory_limit()) if size is not None]
    needed = width * height * BYTES_A_PIXEL if needed is None else needed
    if needed > 2**30 and free and needed > min(free):
        need, there = (f"{size / 2**30:.1f} GB" for size in (needed, min(free)))
        raise InputError(
            f"{name}: {width} x {height} pixels need about {need} of memory, and {there} are free",
            "Scale it down, crop it, or render it on a machine with more memory.",
        )
