"""Which driving frames are rendered, and when each is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from fommctl.errors import InputError
from fommctl.media.stills import LONGEST_PAUSE


class _Timed(Protocol):
    @property
    def time(self) -> Fraction: ...

    @property
    def duration(self) -> Fraction: ...


F = TypeVar("F", bound=_Timed)


@dataclass(frozen=True, slots=True)
class Presentation:
    """A moment of the result: (time, duration) in seconds."""

    time: Fraction
    duration: Fraction


@dataclass(frozen=True, slots=True)
class TimedFrame(Generic[F]):
    """A driving frame with the moments at which its rendering is shown."""

    frame: F
    presentations: tuple[Presentation, ...]
    position: int
    """Number of its first moment in the result, from 0."""


def as_driven(frames: Iterable[F]) -> Iterator[TimedFrame[F]]:
    """Every frame once, at its own time."""
    for position, frame in enumerate(frames):
        yield TimedFrame(frame, (Presentation(frame.time, frame.duration),), position)


def at_rate(frames: Iterable[F], rate: Fraction, end: Fraction | None = None) -> Iterator[TimedFrame[F]]:
    """A constant frame rate: each moment shows the frame that the driving video shows then.

    Frames that no moment falls on are dropped (and never rendered); a frame on which several fall is repeated.
    The result starts when the driving video does. end: seconds at which it stops, though a frame may last longer.
    """
    period, count, first = 1 / rate, 0, None
    for frame in frames:
        first = frame.time if first is None else first
        moment = first + count * period
        presentations = []
        stop = frame.time + frame.duration
        stop = stop if end is None else min(stop, end)
        if stop - moment > LONGEST_PAUSE:
            raise InputError(
                f"the driving video shows one frame for {float(stop - moment):.0f} s: its timestamps are wrong",
                "Leave out --fps, or name the part that is wanted with --start and --end.",
            )
        position = count
        while moment < stop:
            presentations.append(Presentation(moment, period))
            count += 1
            moment = first + count * period
        if presentations:
            yield TimedFrame(frame, tuple(presentations), position)
