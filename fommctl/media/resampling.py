"""Resizing and cutting of pictures in memory: antialiased, and with pixel centres where they belong."""

from __future__ import annotations

from math import ceil, cos, floor, radians, sin
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fommctl.media.boxes import Box, TurnedSquare

Pixels = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)
_SAME_SHAPE = 0.02
"""Difference of two aspect ratios that is stretched away: encoders round sizes to 8 and 16 pixels."""


def rounded(box: Box) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) in whole pixels; a square stays one, and at least one pixel is left."""
    # The sides of a square that was moved differ by a rounding error, which counts where they end in a half.
    width, height = (max(1, round(round(side, 6))) for side in (box.width, box.height))
    return round(box.left), round(box.top), width, height


def crop(pixels: NDArray[Number], box: Box, *, mirrored: bool = False) -> NDArray[Number]:
    """Cut a box, rounded to whole pixels, out of (H, W) or (H, W, C).

    Outside the picture its border is repeated; mirrored: the picture is reflected there.
    """
    left, top, width, height = rounded(box)
    return _window(pixels, left, top, left + width, top + height, mirrored)


def resize(pixels: Pixels, size: tuple[int, int], box: Box | None = None) -> Pixels:
    """Resample (H, W) or (H, W, C), 8 bits, to size (width, height), antialiased where it gets smaller (bicubic).

    box: the part to take, exact to fractions of a pixel; outside the picture the border is repeated. Pixels are
    squares whose centres lie at halves, so that nothing shifts.
    """
    height, width = pixels.shape[:2]
    part = box or Box(0, 0, width, height)
    left, top = min(0, floor(part.left)), min(0, floor(part.top))
    right, bottom = max(width, ceil(part.right)), max(height, ceil(part.bottom))
    if (left, top, right, bottom) != (0, 0, width, height):
        margin = 2 + ceil(2 * max(part.width / size[0], part.height / size[1], 1))
        left, top = floor(part.left) - margin, floor(part.top) - margin
        right, bottom = ceil(part.right) + margin, ceil(part.bottom) + margin
        pixels = _window(pixels, left, top, right, bottom)
    whole = (part.left - left, part.top - top, part.right - left, part.bottom - top)
    if whole == (0, 0, pixels.shape[1], pixels.shape[0]) and size == (pixels.shape[1], pixels.shape[0]):
        return np.ascontiguousarray(pixels)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=whole))


def upright(pixels: Pixels, part: TurnedSquare, size: tuple[int, int]) -> Pixels:
    """Use a turned square out of pixels (H, W, 3), upright, resized to (width, height); the border is repeated."""
    angle = radians(part.angle)
    # The upright square around it is resized first, so that what gets smaller is antialiased as elsewhere.
    width, height = (ceil(side * (abs(cos(angle)) + abs(sin(angle)))) for side in size)
    x, y, reach = *part.center, part.side / 2 * width / size[0]
    around = resize(pixels, (width, height), Box(x - reach, y - reach, x + reach, y + reach))
    if not part.angle:
        return around
    x, y = size[0] / 2, size[1] / 2
    turn = (
        cos(angle), -sin(angle), width / 2 - cos(angle) * x + sin(angle) * y,
        sin(angle), cos(angle), height / 2 - sin(angle) * x - cos(angle) * y,
    )  # fmt: skip
    return np.array(Image.fromarray(around).transform(size, Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC))


def content(size: tuple[int, int], whole: tuple[int, int]) -> Box | None:
    """Return the box where a picture of this size (width, height) lies, as large as it can be, in the middle of a
    picture of size `whole`; None where it fills that, but for a difference of shape that nobody sees."""
    wide, high = size[0] * whole[1], size[1] * whole[0]
    if abs(wide - high) <= _SAME_SHAPE * max(wide, high):
        return None
    if wide > high:
        width, height = whole[0], max(1, round(size[1] * whole[0] / size[0]))
    else:
        width, height = max(1, round(size[0] * whole[1] / size[1])), whole[1]
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    return Box(left, top, left + width, top + height)


def letterboxed(pixels: Pixels, whole: tuple[int, int], size: tuple[int, int] | None = None) -> Pixels:
    """Return (H, W, C) fitted into a picture of size `whole` (width, height), with black bars where the shapes differ.

    size: (width, height) of the pixels where they are no squares; they are made squares.
    """
    place = content(size or (pixels.shape[1], pixels.shape[0]), whole)
    if place is None:
        return resize(pixels, whole)
    left, top, width, height = rounded(place)
    fitted = np.zeros((whole[1], whole[0], *pixels.shape[2:]), np.uint8)
    fitted[top : top + height, left : left + width] = resize(pixels, (width, height))
    return fitted


def over_black(pixels: Pixels, alpha: Pixels | None) -> Pixels:
    """Return (H, W, 3) laid over black by straight alpha (H, W); opaque pixels stay exact."""
    if alpha is None or alpha.min(initial=255) == 255:
        return pixels
    product = pixels.astype(np.uint16) * alpha[..., None]
    return ((product + 127) // 255).astype(np.uint8)


def _window(
    pixels: NDArray[Number], left: int, top: int, right: int, bottom: int, mirrored: bool = False
) -> NDArray[Number]:
    height, width = pixels.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return np.ascontiguousarray(pixels[top:bottom, left:right])
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    if mirrored:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    else:
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    return np.ascontiguousarray(pixels[rows[:, None], columns])


def _reflected(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return places of a line of pixels that is laid back and forth, its ends not repeated."""
    period = max(1, 2 * (count - 1))
    folded = places % period
    return np.minimum(folded, period - folded)
