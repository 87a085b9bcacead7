"""Where a driving video is divided so that the segments' frames are those of a rendering in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fommctl.animate.driving import DrivingReader
from fommctl.animate.motion import EASE
from fommctl.animate.preparation import Settled
from fommctl.animate.streaming import cues_of
from fommctl.media.joining import can_join
from fommctl.media.reader import Frame

_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Segment:
    """Some driving frames in a row that one process renders."""

    number: int
    """From 0."""
    begin: Fraction
    """Time of its first frame: seconds since --start."""
    frames: int | None
    """Driving frames that are rendered; None for the last segment, which goes on to the end."""
    shown: int
    """Number of its first finished frame."""
    end: Fraction | None
    """`begin` of the next segment."""
    shown_at_end: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The segments of a driving video, and what they have in common."""

    origin: Fraction
    """Time of the very first frame."""
    segments: tuple[Segment, ...]
    frames: int
    """Driving frames that are rendered in all, for progress."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place where a segment may begin."""

    begin: Fraction
    frames: int
    """Rendered before it."""
    shown: int


def divide(settled: Settled, pieces: int, batch_size: int, shortest: int = 1) -> Plan | None:
    """At most `pieces` segments of nearly equal length, none of fewer than `shortest` frames; None where there is but
    one.

    What a model makes of a frame may differ in its last bits with the other frames of its batch: segments begin where
    a batch would. Where a frame's subject is missing, and as long as the pose that was held then is passing over, the
    frames before decide what is shown: no segment begins there.
    """
    if not can_join(settled.config.result_path):
        return None
    marks: list[_Mark] = []
    frames = shown = 0
    missed: Fraction | None = None
    with DrivingReader(settled.config, settled.shot) as reader:
        for cue in cues_of(_without_pixels(reader.times()), settled.config):
            if not settled.shot.present(cue.frame.time):
                missed = cue.frame.time
            passed = missed is None or cue.frame.time - missed > EASE
            if frames % batch_size == 0 and (not marks or passed):
                marks.append(_Mark(cue.frame.time, frames, shown))
            frames += 1
            shown += len(cue.showings)
    if not marks:
        return None
    chosen = _chosen(marks, frames, min(pieces, frames // max(1, shortest)))
    if len(chosen) < 2:
        return None
    segments = tuple(
        Segment(
            number=number,
            begin=mark.begin,
            frames=None if after is None else after.frames - mark.frames,
            shown=mark.shown,
            end=None if after is None else after.begin,
            shown_at_end=None if after is None else after.shown,
        )
        for number, (mark, after) in enumerate(zip(chosen, [*chosen[1:], None], strict=True))
    )
    return Plan(chosen[0].begin, segments, frames)


def _chosen(marks: list[_Mark], frames: int, pieces: int) -> list[_Mark]:
    """For each equal share of the frames the mark that is nearest to its beginning."""
    chosen = marks[:1]
    for piece in range(1, pieces):
        wanted = piece * frames / pieces
        nearest = min(marks, key=lambda mark: abs(mark.frames - wanted))
        if nearest.frames > chosen[-1].frames:
            chosen.append(nearest)
    return chosen


def _without_pixels(times: Iterator[tuple[Fraction, Fraction]]) -> Iterator[Frame]:
    for index, (time, duration) in enumerate(times):
        yield Frame(_NO_PIXELS, index, time, duration)
