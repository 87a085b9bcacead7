"""The shots of a driving video, and the square of each: fixed where its subject stays, following where it does not."""

from __future__ import annotations

import bisect
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.api.values import Detection
from fommctl.media.boxes import Box
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.reader import Frame, Reader
from fommctl.stages.cropping.cuts import CutFinder, difference, thumbnail
from fommctl.stages.following import SquarePath, TurnedSquare, smooth_path
from fommctl.stages.framing import (
    BATCH,
    MOST_SAMPLES,
    RATE,
    ClipSquare,
    Sighting,
    fixed_square,
    ideal,
    not_found,
    scaled,
    searched_size,
    square_in_clip,
)
from fommctl.stages.searching import roll, seen_again, seen_turned
from fommctl.stages.tracks import SURE, Track, follow, lasting

log = logging.getLogger(__name__)
DrivingCrop = Literal["auto", "fixed", "follow"]

# A subject whose square moves by less than this part of its side stays inside a fixed square: frames are then those of
# the fixed square.  Nine in ten training clips, which were cut as fixed squares, move by less than 0.2.
STAYS = 0.25
# And one whose size changes by less than this factor, as smoothed, keeps a fixed square filled.
GROWS = 1.35
# Side of the pictures that are compared to find the first frame of a shot between two searched ones.
GLANCE = 160


@dataclass(frozen=True, slots=True)
class Clip:
    """What is searched: a file, or a part of it.  fps: of a folder of frames; start and end: seconds."""

    path: Path
    fps: Fraction | None = None
    start: Fraction | None = None
    end: Fraction | None = None

    def reader(
        self,
        begin: Fraction = Fraction(0),
        end: Fraction | None = None,
        *,
        size: tuple[int, int],
        max_rate: Fraction | None = None,
    ) -> Reader:
        """The frames with begin <= time < end, seconds since `start`; their times count from `begin`."""
        zero = self.start or Fraction(0)
        stop = self.end if end is None else zero + end if self.end is None else min(self.end, zero + end)
        return Reader(self.path, fps=self.fps, start=zero + begin, end=stop, size=size, max_rate=max_rate)


def squares_in_clip(
    clip: Clip,
    detector: Detector,
    width: float,
    *,
    subject: str = "face",
    driving_crop: DrivingCrop = "auto",
    cuts: bool = True,
) -> tuple[ClipSquare, ...]:
    """The square of each shot in which the subject is seen, in the order of time; at least one.

    width: of the subject's box over the side of the square.  A shot without the subject belongs to the one before it
    (to the one after it, at the beginning), where its pose is held.  Raises InputError where no subject is found, and
    what the reader raises.
    """
    if driving_crop == "fixed" and not cuts:
        return (
            square_in_clip(clip.path, detector, width, subject=subject, fps=clip.fps, start=clip.start, end=clip.end),
        )
    info = probe(clip.path, fps=clip.fps)
    times, found, starts, end = _searched(clip, info, detector, cuts)
    bounds = [*starts, end]
    parts = []
    for begin, stop in itertools.pairwise(bounds):
        inside = slice(bisect.bisect_left(times, begin), bisect.bisect_left(times, stop))
        tracks = lasting(follow(times[inside], found[inside]), len(times[inside]))
        parts.append((begin, stop, times[inside], tracks))
    best = max((tracks[0].score for *_, tracks in parts if tracks), default=0.0)
    shots: list[ClipSquare] = []
    waiting: Fraction | None = None
    for begin, stop, moments, tracks in parts:
        if not tracks or tracks[0].score < SURE * best:
            if shots:
                shots[-1] = _longer(shots[-1], moments, stop)
            waiting = begin if waiting is None and not shots else waiting
            continue
        shot = fixed_square(tracks, moments, width, subject, info, stop)
        path = None
        if driving_crop == "follow" or (driving_crop == "auto" and _wanders(tracks[0], moments, width, subject)):
            path = _followed(clip, info, detector, tracks[0], moments, (begin, stop), width, subject)
        shots.append(replace(shot, start=begin if waiting is None else waiting, path=path))
        waiting = None
    if not shots:
        raise not_found(subject, clip.path.name)
    shots[0] = replace(shots[0], start=Fraction(-1))
    if len(shots) > 1:
        log.info("%d shots, from %s s on", len(shots), ", ".join(f"{float(shot.start):.2f}" for shot in shots[1:]))
    return tuple(shots)


def _searched(
    clip: Clip, info: VideoInfo, detector: Detector, cuts: bool
) -> tuple[list[Fraction], list[list[Detection]], list[Fraction], Fraction]:
    """The searched moments, what was found at each, the beginnings of the shots, and the end of the clip.

    Five frames a second are looked at for cuts; in long clips only some of them for subjects, 300 in all.
    """
    zero = clip.start or Fraction(0)
    until = min((limit for limit in (clip.end, info.duration) if limit is not None), default=None)
    every = 1 if until is None else max(1, math.ceil((until - zero) * RATE / MOST_SAMPLES))
    finder = CutFinder(RATE)
    times: list[Fraction] = []
    found: list[list[Detection]] = []
    looked: list[Fraction] = []
    late: list[Fraction] = []
    batch: list[Frame] = []

    def search() -> None:
        detections = detector.detect([frame.pixels for frame in batch])
        times.extend(frame.time for frame in batch)
        found.extend(scaled(these, info, frame.pixels) for these, frame in zip(detections, batch, strict=True))
        batch.clear()

    with clip.reader(size=searched_size(info), max_rate=RATE) as reader:
        for number, frame in enumerate(reader):
            looked.append(frame.time)
            late += [cut.time for cut in finder.take(frame)]
            if number % every == 0 or finder.suspicious:
                batch.append(frame)
            if len(batch) == BATCH:
                search()
    search()
    late += [cut.time for cut in finder.finish()]
    starts = [_first_frame(clip, info, looked[looked.index(time) - 1], time) for time in late] if cuts else []
    step = 1 / RATE
    length = None if until is None else until - zero
    return times, found, [Fraction(0), *starts], max(length or step, looked[-1] + step)


def _first_frame(clip: Clip, info: VideoInfo, before: Fraction, after: Fraction) -> Fraction:
    """Time of the first frame of a shot that began after one searched frame and not later than the next."""
    scale = min(1.0, GLANCE / max(info.width, info.height))
    size = max(1, round(info.width * scale)), max(1, round(info.height * scale))
    with clip.reader(before, after + 1 / info.rate, size=size) as reader:
        frames = [(before + frame.time, frame.pixels) for frame in reader]
    changes = [
        (difference(thumbnail(one), thumbnail(other)), time) for (_, one), (time, other) in itertools.pairwise(frames)
    ]
    return max((found for found in changes if found[1] <= after), key=lambda found: found[0], default=(0.0, after))[1]


def _longer(shot: ClipSquare, moments: Sequence[Fraction], end: Fraction) -> ClipSquare:
    """The shot with what follows it up to `end`, where its subject is not seen."""
    last = max((seen.time for seen in shot.sightings if seen.detection is not None), default=Fraction(-1))
    absent = (*(gap for gap in shot.absent if gap[1] <= last), (last, end))
    return replace(shot, absent=absent, sightings=(*shot.sightings, *(Sighting(time, None) for time in moments)))


def _wanders(track: Track, times: Sequence[Fraction], width: float, subject: str) -> bool:
    """Does the subject leave the place and size that one fixed square can give it?"""
    squares = [_turned(detection, width, subject) for detection in track.detections]
    path = smooth_path([float(times[sample]) for sample in track.samples], squares)
    centers = np.array([square.center for square in path.squares])
    sides = np.array([square.side for square in path.squares])
    travelled = float(np.ptp(centers, axis=0).max() / np.median(sides))
    return travelled > STAYS or bool(sides.max() > GROWS * sides.min()) or any(s.angle for s in path.squares)


def _followed(
    clip: Clip,
    info: VideoInfo,
    detector: Detector,
    track: Track,
    times: Sequence[Fraction],
    bounds: tuple[Fraction, Fraction],
    width: float,
    subject: str,
) -> SquarePath:
    """The path of the square through a shot: its subject measured anew, five times a second, where it is expected."""
    known = [float(times[sample]) for sample in track.samples]
    boxes = np.array([_sides(detection.box) for detection in track.detections])
    measured: list[tuple[float, TurnedSquare]] = []
    with clip.reader(*bounds, size=searched_size(info), max_rate=RATE) as reader:
        for frame in reader:
            time = float(bounds[0] + frame.time)
            x, y = frame.pixels.shape[1] / info.width, frame.pixels.shape[0] / info.height
            expected = Box(*(float(np.interp(time, known, side)) for side in boxes.T)).scaled(x, y)
            for found, angle in _measured(frame.pixels, expected, detector):
                there = scaled([found], info, frame.pixels)[0]
                measured.append((time, _turned(there, width, subject, angle)))
    if not measured:
        measured = [(known[number], _turned(one, width, subject)) for number, one in enumerate(track.detections)]
    return smooth_path([time for time, _ in measured], [square for _, square in measured])


def _measured(pixels: NDArray[np.uint8], expected: Box, detector: Detector) -> Iterator[tuple[Detection, float]]:
    """The subject near where it is expected, and how far it is turned (degrees); nothing where it is not found."""
    found = seen_again(pixels, expected, detector)
    if found is not None:
        yield found, 0.0
    else:
        yield from seen_turned(pixels, expected, detector)


def _turned(detection: Detection, width: float, subject: str, angle: float = 0.0) -> TurnedSquare:
    """The square in which a detection stands as the training data does."""
    box = detection.box
    upright = ideal(box, width, subject)
    tilt = angle + roll(detection)
    radians = math.radians(tilt)
    # The square's middle lies off the box's, along the subject's own axes.
    x, y = (mine - its for mine, its in zip(upright.center, box.center, strict=True))
    center = (
        box.center[0] + math.cos(radians) * x - math.sin(radians) * y,
        box.center[1] + math.sin(radians) * x + math.cos(radians) * y,
    )
    return TurnedSquare(center, upright.width, tilt)


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom
