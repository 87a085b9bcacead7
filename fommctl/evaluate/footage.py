"""The frames of a clip or of a finished result, one at a time: videos, folders of frames, strips, columns of grids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from fommctl.errors import InputError
from fommctl.media.files import DEFAULT_RATE
from fommctl.media.probe import probe
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Reader
from fommctl.media.resampling import Pixels, resize

STRIP_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
"""Of the strips that published tools write and read."""
T = TypeVar("T")


def groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    while group := list(islice(items, size)):
        yield group


@dataclass
class Footage:
    """Frames (H, W, 3) uint8 of one file or folder of frames; every iteration begins at the first.

    Raises InputError, here and while it is read.
    """

    path: Path
    size: tuple[int, int] | None = None
    """(width, height) that every frame is resized to; None: as they are."""
    limit: int | None = None
    """So many frames from the first on."""
    column: int | None = None
    """Of a grid whose cells lie side by side and are as wide, measured by their height, as `cell` says."""
    cell: tuple[int, int] = (1, 1)
    """(width, height) of a cell, in any unit."""
    jpeg_strips: bool = False
    """Wide JPEGs hold frames side by side as wide PNGs do, as in finished results; else each is one frame."""
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.strip = not self.path.is_dir() and self._count_strip() > 1
        self.info = None if self.strip else probe(self.path)

    @property
    def rate(self) -> Fraction:
        """Frames a second; 25 where nothing says it."""
        return self.info.rate if self.info else DEFAULT_RATE

    def __iter__(self) -> Iterator[Pixels]:
        frames = self._strip() if self.strip else self._read()
        for pixels in islice(frames, self.limit):
            part = pixels if self.column is None else self._cell(pixels, self.column)
            yield part if self.size is None else resize(part, self.size)

    def _strip(self) -> Iterator[Pixels]:
        # A picture can be decoded as a whole only: decoding it again for every few frames would save nothing.
        yield from read_frames(self.path, range(self._count_strip()), jpeg_strips=self.jpeg_strips)

    def _count_strip(self) -> int:
        return count_strip(self.path, jpeg=self.jpeg_strips)

    def _read(self) -> Iterator[Pixels]:
        size = self.size if self.column is None else None
        with Reader(self.path, size=size) as reader:
            for frame in reader:
                yield frame.pixels
        self.warnings += reader.warnings

    def _cell(self, pixels: Pixels, column: int) -> Pixels:
        height, whole = pixels.shape[:2]
        width = round(height * self.cell[0] / self.cell[1])
        count = whole // width
        if column >= count:
            raise InputError(
                f"{self.path.name} has {count} columns of {width}x{height} and none of number {column}",
                "Columns are counted from 0; see --column.",
            )
        return np.ascontiguousarray(pixels[:, column * width : (column + 1) * width])


def count_strip(path: Path, *, jpeg: bool) -> int:
    """Frames that stand side by side in a PNG, or in a JPEG too; 1 for everything else that can be read, unread."""
    endings = STRIP_SUFFIXES if jpeg else {".png"}
    return count_frames(path, jpeg_strips=jpeg) if path.suffix.lower() in endings else 1
