"""The shots of a driving video, and the square of each: fixed, or following a subject that moves about."""

from __future__ import annotations

import bisect
import itertools
import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection, Detector
from fommctl.detection.choice import LARGEST, no_such
from fommctl.detection.framing import (
    BATCH,
    MOST_SAMPLES,
    RATE,
    ClipCrop,
    SampledDetection,
    chosen_track,
    crop_in_clip,
    fixed_crop,
    gaps_between,
    ideal,
    not_found,
    scaled,
    searched_size,
)
from fommctl.detection.search import redetect, redetect_turned, roll
from fommctl.detection.tracking import BEYOND, SURE, Track, link_detections, persistent_tracks, smooth_path
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Clip, Frame

# Least mean change of a cut, in levels of 255. Measured on the 595 pairs of 35 real clips of faces, bodies, robots and
# others, joined: 594 are cut at the joint (the other pair, in one room, changes by 10 only), and nothing else is except
# edits, since changes within clips stay below 12 at 5 frames per second and below 10 at 25.
LEAST = 12.0
# Least ratio of a cut's change to the mean of the two changes before and the two after it.
STANDING_OUT, AROUND = 3.0, 2
# If a frame shortly before and one shortly after differ by less than this part of the change, the frames between are a
# flash (or damaged), and the shot continues.
SAME_SHOT = 0.4
FLASH = Fraction(1, 4)
"""Longest duration of a flash, and shortest of a shot, in seconds."""
THUMBNAIL = 32
"""Blocks along the longer side whose means are compared."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Time in seconds and index of the first frame of a new shot."""

    time: Fraction
    frame: int


@dataclass(frozen=True, slots=True)
class _Seen:
    time: Fraction
    frame: int
    thumbnail: NDArray[np.float32]
    change: float
    """Change from the frame before it."""


class CutFinder:
    """Finds cuts in a stream of frames, of which it keeps thumbnails for a quarter of a second."""

    def __init__(self, rate: Fraction) -> None:
        """rate: nominal frames per second."""
        self._reach = max(AROUND, min(15, round(FLASH * rate)))
        self._seen: deque[_Seen] = deque(maxlen=2 * self._reach + 1)
        self._decided = 0
        """Number of frames that were judged."""
        self._taken = 0
        self._last: Cut | None = None
        self.suspicious = False
        """Whether the last frame looks like the first of a shot."""

    def take(self, frame: Frame) -> list[Cut]:
        """Add a frame, and return the cuts that are now certain: those up to about a quarter of a second before it."""
        small = thumbnail(frame.pixels)
        change = difference(small, self._seen[-1].thumbnail) if self._seen else 0.0
        before = [seen.change for seen in list(self._seen)[-AROUND:]]
        self.suspicious = change >= LEAST and change >= STANDING_OUT * float(np.mean(before))
        self._seen.append(_Seen(frame.time, frame.index, small, change))
        self._taken += 1
        return self._judge() if self._taken - self._decided > self._reach else []

    def finish(self) -> list[Cut]:
        """Return the cuts among the last frames."""
        cuts = []
        while self._decided < self._taken:
            cuts += self._judge()
        return cuts

    def _judge(self) -> list[Cut]:
        position = self._decided - (self._taken - len(self._seen))
        self._decided += 1
        seen = list(self._seen)
        candidate = seen[position]
        if position == 0 or not self._stands_out(seen, position) or self._is_flash(seen, position):
            return []
        if self._last is not None and candidate.time - self._last.time < FLASH:
            return []
        self._last = Cut(candidate.time, candidate.frame)
        return [self._last]

    def _stands_out(self, seen: list[_Seen], position: int) -> bool:
        change = seen[position].change
        # The very first frame has no change.
        first = 1 if self._taken <= len(seen) else 0
        before = seen[max(first, position - AROUND) : position]
        others = [other.change for other in (*before, *seen[position + 1 : position + 1 + AROUND])]
        return change >= LEAST and (not others or change >= STANDING_OUT * float(np.mean(others)))

    def _is_flash(self, seen: list[_Seen], position: int) -> bool:
        limit = SAME_SHOT * seen[position].change
        before = seen[max(0, position - self._reach) : position]
        after = seen[position : position + self._reach]
        return any(
            difference(one.thumbnail, other.thumbnail) < limit
            for number, one in enumerate(reversed(before))
            for other in after[: self._reach - number + 1]
        )


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the means over blocks of (H, W, 3), subsampled in large pictures."""
    block = max(1, max(pixels.shape[:2]) // THUMBNAIL)
    step = max(1, block // 8)
    block //= step
    height, width = (-(-side // step) // block * block for side in pixels.shape[:2])
    if not (height and width):
        return pixels.astype(np.float32)
    blocks = pixels[::step, ::step][:height, :width].reshape(height // block, block, width // block, block, 3)
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the mean absolute difference of two thumbnails, in levels of 255."""
    return float(np.abs(one - other).mean())


log = logging.getLogger(__name__)
DrivingCrop = Literal["auto", "fixed", "follow"]

# Part of a box's side outside the picture from which on its subject counts as absent: keypoints are then guesses.
CUT_OFF = 0.16
# Longer side of the frames that are compared to find the first frame of a shot between two searched ones.
GLANCE = 160


def crops_in_clip(
    clip: Clip,
    detector: Detector,
    width: float,
    *,
    subject: str = "face",
    driving_crop: DrivingCrop = "auto",
    cuts: bool = True,
    face: str = LARGEST,
    searched: SearchedClip | None = None,
) -> tuple[ClipCrop, ...]:
    """Return the square of each shot that shows the subject, in order of time; at least one.

    A shot without the subject is merged into the one before it (at the beginning, into the one after it), and the pose
    is held there.

    width: width of the subject's box, in sides of the square.  face: which subject of each shot, see
    `fommctl.detection.choice`.  searched: the result of `search_clip`, if already known.  Raises InputError if no such
    subject is found, and the errors of the reader.
    """
    if driving_crop == "fixed" and not cuts:
        return (crop_in_clip(clip, detector, width, subject=subject, face=face),)
    info = clip.info
    searched = searched or search_clip(clip, detector, cuts)
    times, found, starts, end = searched.times, searched.found, searched.starts, searched.end
    bounds = [*starts, end]
    parts = []
    for begin, stop in itertools.pairwise(bounds):
        inside = slice(bisect.bisect_left(times, begin), bisect.bisect_left(times, stop))
        tracks = persistent_tracks(link_detections(times[inside], found[inside]), len(times[inside]))
        parts.append((begin, stop, times[inside], tracks, chosen_track(face, tracks, times[inside])))
    best = max((one[0].score for *_, one in parts if one is not None), default=0.0)
    shots: list[ClipCrop] = []
    waiting: Fraction | None = None
    for begin, stop, moments, tracks, one in parts:
        if one is None or one[0].score < SURE * best:
            if shots:
                shots[-1] = _longer(shots[-1], moments, stop)
            waiting = begin if waiting is None and not shots else waiting
            continue
        shot = replace(fixed_crop(one, moments, width, subject, info, stop), found=len(tracks))
        if driving_crop != "fixed":
            others = [_Passing.of(track, moments) for track in tracks if track is not one[0]]
            shot = _followed(clip, info, detector, shot, (begin, stop), width, subject, driving_crop, others)
        shot = _without_cut_off(shot, info, stop)
        if waiting is not None:
            shot = _sooner(shot)
        shots.append(replace(shot, start=begin if waiting is None else waiting))
        waiting = None
    if not shots:
        most = max(len(tracks) for *_, tracks, _ in parts)
        raise (
            no_such(subject, face, most, clip.path.name)
            if most
            else not_found(subject, clip.path.name, "--driving-crop")
        )
    shots[0] = replace(shots[0], start=Fraction(-1))
    if len(shots) > 1:
        log.info("%d shots, from %s s on", len(shots), ", ".join(f"{float(shot.start):.2f}" for shot in shots[1:]))
    return tuple(shots)


@dataclass(frozen=True, slots=True)
class SearchedClip:
    """The result of searching a clip."""

    times: list[Fraction]
    """Times of the searched frames, in seconds."""
    found: list[list[Detection]]
    """Subjects in each of these frames."""
    starts: list[Fraction]
    """Times at which the shots begin."""
    end: Fraction


def search_clip(clip: Clip, detector: Detector, cuts: bool) -> SearchedClip:
    """Search a clip for subjects and, if `cuts` is set, for cuts.

    Five frames per second are compared to find cuts; subjects are detected in at most about 300 of them.
    """
    info = clip.info
    zero = clip.start
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
    return SearchedClip(times, found, [Fraction(0), *starts], max(length or step, looked[-1] + step))


def _first_frame(clip: Clip, info: VideoInfo, before: Fraction, after: Fraction) -> Fraction:
    """Return the time of the first frame of a shot that begins between two searched frames."""
    scale = min(1.0, GLANCE / max(info.width, info.height))
    size = max(1, round(info.width * scale)), max(1, round(info.height * scale))
    with clip.reader(before, after + 1 / info.rate, size=size) as reader:
        frames = [(before + frame.time, frame.pixels) for frame in reader]
    changes = [
        (difference(thumbnail(one), thumbnail(other)), time) for (_, one), (time, other) in itertools.pairwise(frames)
    ]
    return max((found for found in changes if found[1] <= after), key=lambda found: found[0], default=(0.0, after))[1]


def _longer(shot: ClipCrop, moments: Sequence[Fraction], end: Fraction) -> ClipCrop:
    """Extend a shot to `end` by the frames after it, which do not show its subject."""
    last = max((seen.time for seen in shot.samples if seen.detection is not None), default=Fraction(-1))
    absent = (*(gap for gap in shot.gaps if gap[1] <= last), (last, end))
    return replace(shot, gaps=absent, samples=(*shot.samples, *(SampledDetection(time, None) for time in moments)))


def _sooner(shot: ClipCrop) -> ClipCrop:
    """Extend a shot to the beginning by the frames before it, which do not show its subject."""
    first = next(seen.time for seen in shot.samples if seen.detection is not None)
    return replace(shot, gaps=((Fraction(-1), first), *(gap for gap in shot.gaps if gap[0] > Fraction(-1))))


@dataclass(frozen=True, slots=True)
class _Passing:
    """Another subject of the shot, which must not be confused with the followed one."""

    times: list[float]
    boxes: NDArray[np.float64]
    """(N, 4)."""

    @classmethod
    def of(cls, track: Track, moments: Sequence[Fraction]) -> _Passing:
        boxes = np.array([one.box.sides for one in track.detections])
        return cls([float(moments[sample]) for sample in track.samples], boxes)

    def at(self, time: float) -> Box | None:
        """Return the box at a time; None before and after the subject was seen."""
        if not self.times[0] - BEYOND <= time <= self.times[-1] + BEYOND:
            return None
        return Box(*(float(np.interp(time, self.times, side)) for side in self.boxes.T))


def _followed(
    clip: Clip,
    info: VideoInfo,
    detector: Detector,
    shot: ClipCrop,
    bounds: tuple[Fraction, Fraction],
    width: float,
    subject: str,
    driving_crop: DrivingCrop,
    others: Sequence[_Passing] = (),
) -> ClipCrop:
    """Add to a shot the path of a following square, from new detections five times per second.

    With `driving_crop` auto, the square follows only if the subject moves about, or may do so where it was not detected
    because it is tilted too far; otherwise the shot is returned unchanged.
    """
    seen = [(one.time, one.detection) for one in shot.samples if one.detection is not None]
    known = [float(time) for time, _ in seen]
    coarse = smooth_path(known, [_turned(detection, width, subject) for _, detection in seen])
    if driving_crop == "auto" and not coarse.wanders and len(seen) == len(shot.samples):
        return shot
    boxes = np.array([detection.box.sides for _, detection in seen])
    tilts = subject == "face" and all(detection.landmarks is None for _, detection in seen)
    measured: list[tuple[Fraction, Detection, float]] = []
    times: list[Fraction] = []
    with clip.reader(*bounds, size=searched_size(info), max_rate=RATE) as reader:
        for frame in reader:
            times.append(bounds[0] + frame.time)
            scale = frame.pixels.shape[1] / info.width, frame.pixels.shape[0] / info.height
            own = Box(*(float(np.interp(float(times[-1]), known, side)) for side in boxes.T))
            expected = own.scaled(*scale)
            found: tuple[Detection, float] | None
            if tilts:
                found = redetect_turned(frame.pixels, expected, measured[-1][2] if measured else 0.0, detector)
            else:
                upright = redetect(frame.pixels, expected, detector)
                found = None if upright is None else (upright, roll(upright))
            if found is None:
                continue
            here = scaled([found[0]], info, frame.pixels)[0]
            passing = [box for other in others if (box := other.at(float(times[-1]))) is not None]
            if all(here.box.iou(box) <= here.box.iou(own) for box in passing):
                measured.append((times[-1], here, found[1]))
    if not measured:
        return shot
    squares = [_turned(detection, width, subject, angle) for _, detection, angle in measured]
    path = smooth_path([float(time) for time, *_ in measured], squares)
    if driving_crop == "auto" and not path.wanders:
        return shot
    again = {time: detection for time, detection, _ in measured} | dict(seen)
    samples = tuple(SampledDetection(time, again.get(time)) for time in sorted({*times, *again}))
    return replace(shot, path=path, samples=samples, gaps=gaps_between(samples, bounds[1]))


def _without_cut_off(shot: ClipCrop, info: VideoInfo, end: Fraction) -> ClipCrop:
    """Add gaps to a shot where the picture's edge cuts its subject off, however short they are."""
    cut = [one.detection is not None and _is_cut_off(one.detection.box, info) for one in shot.samples]
    whole = [one.detection is not None and not out for one, out in zip(shot.samples, cut, strict=True)]
    if not any(cut) or not any(whole):
        return shot
    gaps = []
    numbers = [number for number, good in enumerate(whole) if good]
    for before, after in itertools.pairwise([-1, *numbers, len(whole)]):
        if any(cut[before + 1 : after]):
            gaps.append(
                (
                    shot.samples[before].time if before >= 0 else Fraction(-1),
                    shot.samples[after].time if after < len(whole) else end,
                )
            )
    inside = [gap for gap in shot.gaps if not any(start <= gap[0] and gap[1] <= stop for start, stop in gaps)]
    return replace(shot, gaps=tuple(sorted((*inside, *gaps))))


def _is_cut_off(box: Box, info: VideoInfo) -> bool:
    inside = box.clipped(info.width, info.height)
    return inside.width < (1 - CUT_OFF) * box.width or inside.height < (1 - CUT_OFF) * box.height


def _turned(detection: Detection, width: float, subject: str, angle: float = 0.0) -> TurnedSquare:
    """Return the square that frames a subject like the training data, tilted by an angle (degrees)."""
    box = detection.box
    upright = ideal(box, width, subject)
    radians = math.radians(angle)
    # The offset between the centres of square and box is along the subject's own axes.
    x, y = (mine - its for mine, its in zip(upright.center, box.center, strict=True))
    center = (
        box.center[0] + math.cos(radians) * x - math.sin(radians) * y,
        box.center[1] + math.sin(radians) * x + math.cos(radians) * y,
    )
    return TurnedSquare(center, upright.width, angle)
