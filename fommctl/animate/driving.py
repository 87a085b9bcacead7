"""Frames of the driving video as the model sees them: cut by a fixed square, or by one that follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import Self

from fommctl.animate.config import AnimateConfig
from fommctl.animate.shot import Shot
from fommctl.detection.framing import ClipSquare
from fommctl.detection.shots import driving_clip
from fommctl.media.boxes import TurnedSquare
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame
from fommctl.media.resampling import resize, upright


class DrivingReader:
    """Iterates over the driving frames of an `animate`, trimmed, cut and resized for the model.

    A clip of one shot with a fixed square is cut while it is decoded. Of any other, whole frames are decoded, no larger
    than its smallest square needs.
    """

    def __init__(
        self,
        config: AnimateConfig,
        shot: Shot,
        *,
        begin: Fraction = Fraction(0),
        end: Fraction | None = None,
        max_rate: Fraction | None = None,
    ) -> None:
        """begin, end: seconds since --start; only frames between them are read, and their times count from --start.
        max_rate: at most so many frames a second."""
        self._shot, self._begin = shot, begin
        self._moving = bool(shot.shots) and shot.fixed_driving_box is None
        box, size = (None, _decoded_size(shot)) if self._moving else (shot.fixed_driving_box, shot.size)
        self._reader = driving_clip(config).reader(begin, end, box=box, size=size, max_rate=max_rate)

    @property
    def warnings(self) -> list[str]:
        """What could not be read, so far."""
        return self._reader.warnings

    @property
    def info(self) -> VideoInfo:
        """The driving video's."""
        return self._reader.info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._reader:
            moved = replace(frame, time=frame.time + self._begin) if self._begin else frame
            yield self._cut(moved) if self._moving else moved

    def times(self) -> Iterator[tuple[Fraction, Fraction]]:
        """(time, duration) of each frame without its pixels: see `Reader.times`."""
        for time, duration in self._reader.times():
            yield time + self._begin, duration

    def _cut(self, frame: Frame) -> Frame:
        part = self._shot.shots[self._shot.number_at(frame.time)]
        scale = frame.pixels.shape[1] / self._reader.info.width, frame.pixels.shape[0] / self._reader.info.height
        if part.path is None:
            return replace(frame, pixels=resize(frame.pixels, self._shot.size, part.box.scaled(*scale)))
        at = part.path.at(float(frame.time))
        center = at.center[0] * scale[0], at.center[1] * scale[1]
        moved = TurnedSquare(center, at.side * scale[0], at.angle)
        return replace(frame, pixels=upright(frame.pixels, moved, self._shot.size))


def _decoded_size(shot: Shot) -> tuple[int, int]:
    """(width, height) at which whole frames are decoded: as large as the smallest square needs."""
    smallest = min(_smallest(part) for part in shot.shots)
    scale = min(1.0, shot.size[0] / smallest)
    width, height = shot.driving_size
    return max(1, round(width * scale)), max(1, round(height * scale))


def _smallest(part: ClipSquare) -> float:
    return part.box.width if part.path is None else part.path.smallest
