"""Boxes in pictures: half-open, in pixels, x to the right and y down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle [left, right) x [top, bottom) in pixels; may reach beyond the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def shifted(self, x: float, y: float) -> Box:
        """Return the box moved by x to the right and y down."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def scaled(self, x: float, y: float | None = None) -> Box:
        """Return the box after its picture is scaled by x horizontally and by y (default x) vertically."""
        y = x if y is None else y
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)

    def intersection(self, other: Box) -> Box:
        """Return the intersection of both boxes; of area 0 if they do not overlap."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Box(left, top, max(left, min(self.right, other.right)), max(top, min(self.bottom, other.bottom)))

    def iou(self, other: Box) -> float:
        """Return intersection over union, in [0, 1]; 0 for empty boxes."""
        shared = self.intersection(other).area
        both = self.area + other.area - shared
        # A box thinner than the resolution of floats has no area, yet an intersection may be rounded up to some.
        return min(1.0, shared / both) if both > 0 else 0.0

    def clipped(self, width: int, height: int) -> Box:
        """Return the part inside a picture of this size."""
        return self.intersection(Box(0, 0, width, height))

    def shifted_inside(self, width: int, height: int) -> Box:
        """Return the box after the smallest shift that brings it inside a picture of this size.

        Along an axis in which it is larger than the picture, the smallest shift that makes it cover the picture.
        """
        return self.shifted(
            _shift_inside(self.left, self.right, width),
            _shift_inside(self.top, self.bottom, height),
        )


@dataclass(frozen=True, slots=True)
class TurnedSquare:
    """A square of a picture, in pixels, that may be turned and may reach beyond the picture."""

    center: tuple[float, float]
    """(x, y)."""
    side: float
    angle: float = 0.0
    """Degrees by which it is turned clockwise."""


def _shift_inside(low: float, high: float, size: int) -> float:
    nearest, farthest = sorted((-low, size - high))
    return min(max(0, nearest), farthest)


def square(center: tuple[float, float], side: float, multiple: int = 1) -> Box:
    """Return the square of this side around a centre (x, y), its corner and side rounded to whole multiples of
    `multiple`.

    A multiple of 2 keeps a square on the chroma grid of 4:2:0 video. The side is at least one multiple.
    """
    size = max(1, round(side / multiple)) * multiple
    left, top = (round((middle - size / 2) / multiple) * multiple for middle in center)
    return Box(left, top, left + size, top + size)
