"""Resizing and cropping of pictures in memory: antialiased, with pixel centres at half-integers."""

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
"""Largest relative difference of two aspect ratios that is ignored: encoders round sizes to 8 and 16 pixels."""


def rounded(box: Box) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) in whole pixels; a square stays a square, and sides are at least 1."""
    # The sides of a shifted square differ by a rounding error, which matters if they end in a half.
    width, height = (max(1, round(round(side, 6))) for side in (box.width, box.height))
    return round(box.left), round(box.top), width, height


def crop(pixels: NDArray[Number], box: Box, *, mirrored: bool = False) -> NDArray[Number]:
    """Crop (H, W) or (H, W, C) to a box, rounded to whole pixels.

    mirrored: extend the picture by reflection, not by repeating its border.
    """
    left, top, width, height = rounded(box)
    return _window(pixels, left, top, left + width, top + height, mirrored)


def resize(pixels: Pixels, size: tuple[int, int], box: Box | None = None) -> Pixels:
    """Resample (H, W) or (H, W, C), 8 bits, to size (width, height), bicubic and antialiased.

    box: the part to take, exact to fractions of a pixel; outside the picture its border is repeated. Pixel centres are
    at half-integers, so that nothing shifts.
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
    """Cut a turned square out of pixels (H, W, 3), upright, resized to (width, height).

    Outside the picture its border is repeated.
    """
    angle = radians(part.angle)
    # First resize the upright square around it, which is antialiased when it gets smaller.
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
    """Return the box of a picture of this size (width, height) when it is fitted centrally into a picture of size
    `whole`; None if it fills it, up to an invisible difference of aspect ratio."""
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
    """Fit (H, W, C) into a picture of size `whole` (width, height), with black bars if aspect ratios differ.

    size: (width, height) of the picture with square pixels, if its own are not square.
    """
    place = content(size or (pixels.shape[1], pixels.shape[0]), whole)
    if place is None:
        return resize(pixels, whole)
    left, top, width, height = rounded(place)
    fitted = np.zeros((whole[1], whole[0], *pixels.shape[2:]), np.uint8)
    fitted[top : top + height, left : left + width] = resize(pixels, (width, height))
    return fitted


def over_black(pixels: Pixels, alpha: Pixels | None) -> Pixels:
    """Composite (H, W, 3) with straight alpha (H, W) over black; opaque pixels stay exact."""
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
    """Reflect indices into [0, count), without repeating the ends."""
    period = max(1, 2 * (count - 1))
    folded = places % period
    return np.minimum(folded, period - folded)
