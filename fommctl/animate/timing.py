"""Which driving frames are rendered, and when each is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from fommctl.errors import InputError
from fommctl.media.reader import Frame
from fommctl.media.stills import LONGEST_PAUSE


@dataclass(frozen=True, slots=True)
class Showing:
    """A moment of the result: (time, duration) in seconds."""

    time: Fraction
    duration: Fraction


@dataclass(frozen=True, slots=True)
class Cue:
    """A driving frame with the moments at which its rendering is shown."""

    frame: Frame
    showings: tuple[Showing, ...]


def as_driven(frames: Iterable[Frame]) -> Iterator[Cue]:
    """Every frame once, at its own time."""
    for frame in frames:
        yield Cue(frame, (Showing(frame.time, frame.duration),))


def at_rate(
    frames: Iterable[Frame],
    rate: Fraction,
    end: Fraction | None = None,
    *,
    first: Fraction | None = None,
    shown: int = 0,
) -> Iterator[Cue]:
    """A constant frame rate: each moment shows the frame that the driving video shows then.

    Frames that no moment falls on are dropped (and never rendered); a frame on which several fall is repeated.
    The result starts when the driving video does. end: seconds at which it stops, though a frame may last longer.
    first, shown: where the frames go on in the middle, the time of the very first one, and how many moments are past.
    """
    period, count = 1 / rate, shown
    for frame in frames:
        first = frame.time if first is None else first
        moment = first + count * period
        showings = []
        stop = frame.time + frame.duration
        stop = stop if end is None else min(stop, end)
        if stop - moment > LONGEST_PAUSE:
            raise InputError(
                f"the driving video shows one frame for {float(stop - moment):.0f} s: its timestamps are wrong",
                "Leave out --fps, or name the part that is wanted with --start and --end.",
            )
        while moment < stop:
            showings.append(Showing(moment, period))
            count += 1
            moment = first + count * period
        if showings:
            yield Cue(frame, tuple(showings))
