"""Reads the frames of clips and finished results, as streams of frame batches to score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import FrameChunk
from fommctl.errors import InputError
from fommctl.media.files import DEFAULT_RATE
from fommctl.media.probe import probe
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Reader
from fommctl.media.resampling import Pixels, resize
from fommctl.threads import ReadAhead, batches

STRIP_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
"""Suffixes of strips of frames, as published tools write and read them."""


@dataclass
class ClipFrames:
    """Frames (H, W, 3) uint8 of a file or a folder of frames; each iteration starts at the first.

    Raises InputError, also while it is read.
    """

    path: Path
    size: tuple[int, int] | None = None
    """(width, height) to resize frames to; None to keep their size."""
    limit: int | None = None
    """Largest number of frames to read; None for all."""
    column: int | None = None
    """Index from 0 of the column to read from frames that are grids; None for frames that are not."""
    cell: tuple[int, int] = (1, 1)
    """Aspect ratio of a grid's cells as (width, height), in any unit."""
    jpeg_strips: bool = False
    """Whether wide JPEGs are strips of frames, like wide PNGs; False: each is one frame."""
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.strip = not self.path.is_dir() and self._count_strip() > 1
        self.info = None if self.strip else probe(self.path)

    @property
    def rate(self) -> Fraction:
        """Frames per second; 25 if the file has no rate."""
        return self.info.rate if self.info else DEFAULT_RATE

    def __iter__(self) -> Iterator[Pixels]:
        frames = self._strip() if self.strip else self._read()
        for pixels in islice(frames, self.limit):
            part = pixels if self.column is None else self._cell(pixels, self.column)
            yield part if self.size is None else resize(part, self.size)

    def _strip(self) -> Iterator[Pixels]:
        # All frames at once, as a picture can only be decoded as a whole.
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
                f"{self.path.name} has {count} columns of {width}x{height}, so there is no column {column}",
                "Columns are counted from 0; see --column.",
            )
        return np.ascontiguousarray(pixels[:, column * width : (column + 1) * width])


def count_strip(path: Path, *, jpeg: bool) -> int:
    """Return the number of frames side by side in a PNG, or with `jpeg` in a JPEG; 1 for other files, which are not
    read."""
    suffixes = STRIP_SUFFIXES if jpeg else {".png"}
    return count_frames(path, jpeg_strips=jpeg) if path.suffix.lower() in suffixes else 1


BATCH = 16
"""Most frames per batch."""


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Consecutive frames of a clip."""

    chunk: FrameChunk
    source: Pixels | None
    """Source picture (H, W, 3); None for finished results."""
    driving: NDArray[np.uint8]
    """Driving frames (N, H, W, 3); the truth in a reconstruction and for finished results."""

    def against_source(self) -> FrameChunk:
        """Return the chunk with the source picture in place of a missing truth, for identity metrics."""
        if self.source is None or self.chunk.truth is not None:
            return self.chunk
        return replace(self.chunk, truth=np.broadcast_to(self.source, (len(self.chunk), *self.source.shape)))

    def against_driving(self) -> FrameChunk:
        """Return the chunk with the driving frames in place of a missing truth, for motion metrics."""
        return self.chunk if self.chunk.truth is not None else replace(self.chunk, truth=self.driving)


@dataclass
class FrameStream:
    """The batches of one clip, which can be iterated only once."""

    batches: Iterable[FrameBatch]
    rate: float
    """Frames per second."""
    warnings: list[str] = field(default_factory=list)
    """Warnings, complete after the last batch."""
    ahead: int = 0
    """Number of batches to read ahead in a thread: 0 for models, which must render in the thread that detects their
    keypoints."""

    def __iter__(self) -> Iterator[FrameBatch]:
        if not self.ahead:
            yield from self.batches
            return
        with ReadAhead(self.batches, self.ahead) as batches:
            yield from batches


def compare_files(prediction: ClipFrames, truth: ClipFrames) -> FrameStream:
    """Stream a finished result with its reference, up to the end of the shorter one."""
    warnings: list[str] = []

    def compared() -> Iterator[FrameBatch]:
        predicted, true = iter(prediction), iter(truth)
        first = 0
        while True:
            ours, theirs = (next(batches(frames, BATCH), []) for frames in (predicted, true))
            common = min(len(ours), len(theirs))
            if common:
                chunk = FrameChunk(_stacked(ours[:common], theirs[:common]), np.stack(theirs[:common]), None, first)
                yield FrameBatch(chunk, None, np.stack(theirs[:common]))
            first += common
            if len(ours) != len(theirs):
                rest = sum(1 for _ in (predicted if len(ours) > len(theirs) else true)) + abs(len(ours) - len(theirs))
                which = "prediction" if len(ours) > len(theirs) else "truth"
                warnings.append(f"the {which} has {rest} more frames; the first {first} were compared")
            if common < BATCH:
                break
        warnings.extend(f"prediction: {text}" for text in prediction.warnings)
        warnings.extend(f"truth: {text}" for text in truth.warnings)

    return FrameStream(compared(), float(truth.rate), warnings, ahead=2)


def _stacked(ours: list[Pixels], theirs: list[Pixels]) -> NDArray[np.uint8]:
    if ours[0].shape != theirs[0].shape:
        (height, width), (true_height, true_width) = ours[0].shape[:2], theirs[0].shape[:2]
        raise InputError(
            f"the prediction is {width}x{height} and the truth {true_width}x{true_height}",
            "Give --resize to resize predictions, or --column if they are one column of a grid.",
        )
    return np.stack(ours)
