"""Choosing the square of a picture or clip that a model sees, framed like its training data."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection, Detector
from fommctl.detection.choice import LARGEST, chosen, left_to_right, no_such, numbered_tracks
from fommctl.detection.search import detect_in_tiles, refined_box
from fommctl.detection.tracking import (
    SquarePath,
    Track,
    confident_detections,
    link_detections,
    persistent_tracks,
    travel,
)
from fommctl.errors import InputError
from fommctl.media.boxes import Box, TurnedSquare, square
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Clip
from fommctl.threads import batches

log = logging.getLogger(__name__)

# Position of the centre of the subject's box in the square. Faces: mean over the 105 stills (0.508, 0.566) and 372
# frames of the clips (0.499, 0.562) that the built-in model was trained on, by dlib-hog; the spread is 0.05.
CENTERS = {"face": (0.5, 0.5625)}
MIDDLE = (0.5, 0.5)
# Largest factor by which a square may shrink to fit: outside the picture is repeated border, which models render badly.
SHRINK = 1.3
# Motion that fits into the framing itself, in sides of the square: nine in ten training clips of the built-in model,
# all of which were cropped to fixed squares, move by less.
SLACK = 0.2
# Percent of the detections on each side that are ignored as outliers.
OUTER = 5
RATE = Fraction(5)
"""Frames per second that are searched for the subject."""
MOST_SAMPLES = 300
# Length in seconds from which on the reader seeks to single frames instead of decoding all between them.
LONG = 300
LONGEST_SIDE = 1280
BATCH = 8
# A subject counts as absent only after this many seconds (and two samples) without a detection: detectors lose turned
# heads for moments in which the model still works.
MAX_GAP_S = 1


@dataclass(frozen=True, slots=True)
class Crop:
    """The square of a picture."""

    box: Box
    """Whole pixels; may reach beyond the picture, whose border is then repeated."""
    found: int
    """Subjects in the picture."""
    score: float
    """Score of the detection, comparable within one detector only."""
    subject: Detection
    number: int = 1
    """Number of the subject, from left to right."""
    all_boxes: tuple[Box, ...] = ()
    """Boxes of all subjects, in order of their numbers."""
    turned: TurnedSquare | None = None
    """The square itself, where it may be turned; `box` is then its bounding box."""


@dataclass(frozen=True, slots=True)
class SampledDetection:
    """The subject in one searched frame of a clip."""

    time: Fraction
    """Time of the frame in the clip, in seconds."""
    detection: Detection | None


@dataclass(frozen=True, slots=True)
class ClipCrop:
    """The square of one shot of a clip."""

    box: Box
    """The fixed square: even whole pixels; may reach beyond the picture, whose border is then repeated."""
    found: int
    """Subjects in the shot."""
    score: float
    """Mean over the detections, comparable within one detector only."""
    gaps: tuple[tuple[Fraction, Fraction], ...]
    """Open intervals of time (seconds) between two samples, without the subject; one at the beginning starts at -1."""
    samples: tuple[SampledDetection, ...]
    """Every searched frame, in order."""
    start: Fraction = Fraction(-1)
    """Time of the shot's first frame in seconds; -1 for the clip's first shot."""
    path: SquarePath | None = None
    """The square that follows the subject, where a fixed one does not suffice."""
    number: int = 1
    """Number of the subject, see `fommctl.detection.choice`."""

    @property
    def width(self) -> float:
        """Width of the subject's box over the side of the square: the median of the samples."""
        seen = [sample.detection.box.width for sample in self.samples if sample.detection is not None]
        return median(seen) / self.box.width


def crop_in_picture(
    pixels: NDArray[np.uint8],
    detector: Detector,
    width: float,
    *,
    subject: str = "face",
    name: str = "the picture",
    face: str = LARGEST,
) -> Crop:
    """Return the square around a confidently detected subject of a picture (H, W, 3).

    width: width of the subject's box, in sides of the square.  name: name of the picture, for messages.  face: which
    subject, see `fommctl.detection.choice`.
    The square is shifted into the picture if it fits. Raises InputError if there is no such subject.
    """
    found, number, boxes = _subject(pixels, detector, subject, name, face)
    wanted = ideal(refined_box(pixels, found.box, detector), width, subject)
    box = fitted(wanted.center, wanted.width, pixels.shape[1], pixels.shape[0])
    return Crop(box, len(boxes), found.score, found, number, boxes)


def _subject(
    pixels: NDArray[np.uint8], detector: Detector, subject: str, name: str, face: str
) -> tuple[Detection, int, tuple[Box, ...]]:
    """Return the chosen subject, its number, and the boxes of all subjects."""
    sure = confident_detections(detect_in_tiles(pixels, detector))
    if not sure:
        raise not_found(subject, name)
    numbered = left_to_right(sure)
    found = chosen(face, sure, numbered, lambda one: one.box)
    if found is None:
        raise no_such(subject, face, len(sure), name)
    return *found, tuple(one.box for one in numbered)


def crop_in_clip(
    clip: Clip,
    detector: Detector,
    width: float,
    *,
    subject: str = "face",
    face: str = LARGEST,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> ClipCrop:
    """Return one fixed square around a persistent subject of a clip, wide enough for its motion.

    Five frames per second are searched, and at most about 300, evenly spread, so that hours of video take no longer
    than minutes.
    width: width of the subject's box, in sides of the square.  face: which subject, see `fommctl.detection.choice`.
    report(frames done, total): called during the search.
    Raises InputError if no such subject is found, and the errors of the reader.
    """
    info = clip.info
    times: list[Fraction] = []
    found: list[list[Detection]] = []
    samples, length, rate = _samples(clip)
    for batch in batches(samples, BATCH):
        times += [time for time, _ in batch]
        detections = detector.detect([pixels for _, pixels in batch])
        found += [scaled(these, info, pixels) for these, (_, pixels) in zip(detections, batch, strict=True)]
        report(len(times), None if length is None else max(len(times), math.ceil(length * rate)))
    step = 1 / rate
    tracks = persistent_tracks(link_detections(times, found), len(times))
    if not tracks:
        raise not_found(subject, clip.path.name, "--driving-crop")
    found_track = chosen_track(face, tracks, times)
    if found_track is None:
        raise no_such(subject, face, len(tracks), clip.path.name)
    end = max(length or step, times[-1] + step)
    return replace(fixed_crop(found_track, times, width, subject, info, end), found=len(tracks))


def chosen_track(face: str, tracks: Sequence[Track], times: Sequence[Fraction]) -> tuple[Track, int] | None:
    """Return the chosen subject of a shot and its number; None if there is none.  tracks: the largest first."""
    return chosen(face, tracks, numbered_tracks(tracks, times), lambda track: track.detections[0].box)


def fixed_crop(
    found: tuple[Track, int], times: Sequence[Fraction], width: float, subject: str, info: VideoInfo, end: Fraction
) -> ClipCrop:
    """Return the fixed square around a track.  found: the track and its number.  times: times of the searched frames.
    end: end of the shot."""
    track, number = found
    seen = dict(zip(track.samples, track.detections, strict=True))
    samples = tuple(SampledDetection(time, seen.get(number)) for number, time in enumerate(times))
    center, side = spread([detection.box for detection in track.detections], width, subject)
    box = fitted(center, side, info.width, info.height, multiple=2)
    return ClipCrop(box, 1, track.score, gaps_between(samples, end), samples, number=number)


def _samples(clip: Clip) -> tuple[Iterator[tuple[Fraction, NDArray[np.uint8]]], Fraction | None, Fraction]:
    """Return the frames to search with their times, the length of the clip in seconds, and frames per second."""
    info, end = clip.info, clip.end
    size = searched_size(info)
    until = min(limit for limit in (end, info.duration) if limit is not None) if end or info.duration else None
    length = None if until is None else max(Fraction(0), until - clip.start)
    rate = min(RATE, MOST_SAMPLES / length) if length else RATE

    def all_along() -> Iterator[tuple[Fraction, NDArray[np.uint8]]]:
        with clip.reader(size=size, max_rate=rate) as reader:
            for frame in reader:
                yield frame.time, frame.pixels

    def one_by_one() -> Iterator[tuple[Fraction, NDArray[np.uint8]]]:
        for number in range(MOST_SAMPLES):
            offset = number / rate
            with clip.reader(offset, size=size) as reader:
                frame = next(iter(reader), None)
            if frame is not None:
                yield offset + frame.time, frame.pixels

    return one_by_one() if length and length >= LONG else all_along(), length, rate


def searched_size(info: VideoInfo, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """Return (width, height) of the frames to search: the clip's size, reduced to `longest` on the longer side."""
    scale = min(1.0, longest / max(info.width, info.height))
    return max(1, round(info.width * scale)), max(1, round(info.height * scale))


def scaled(detections: Sequence[Detection], info: VideoInfo, pixels: NDArray[np.uint8]) -> list[Detection]:
    """Convert detections in a reduced frame to the clip's pixels."""
    x, y = info.width / pixels.shape[1], info.height / pixels.shape[0]
    return [
        Detection(
            found.box.scaled(x, y),
            found.score,
            None if found.landmarks is None else found.landmarks * np.array([x, y], np.float32),
        )
        for found in detections
    ]


def spread(boxes: Sequence[Box], width: float, subject: str) -> tuple[tuple[float, float], float]:
    """Return the centre and side of the one square that frames a moving subject, wide enough for its motion.

    boxes: boxes of the subject, in pixels.  width: width of its box, in sides of the square.
    """
    squares = [ideal(box, width, subject) for box in boxes]
    left, top = np.percentile([(box.left, box.top) for box in squares], OUTER, axis=0).tolist()
    right, bottom = np.percentile([(box.right, box.bottom) for box in squares], 100 - OUTER, axis=0).tolist()
    side = median(box.width for box in squares)
    return ((left + right) / 2, (top + bottom) / 2), max(side, max(right - left, bottom - top) - SLACK * side)


def mean_crop(shot: ClipCrop, width: float, subject: str) -> ClipCrop:
    """Replace a shot's square by the mean of the squares of all frames that show the subject, as LivePortrait's
    published code crops a driving video: no room for motion is added, and the square is not shifted into the
    picture."""
    boxes = [ideal(seen.detection.box, width, subject) for seen in shot.samples if seen.detection is not None]
    x, y, side = np.mean([(*box.center, box.width) for box in boxes], axis=0).tolist()
    return replace(shot, box=square((x, y), side, 2))


def ideal(box: Box, width: float, subject: str) -> Box:
    """Return the square that frames the subject like the training data."""
    x, y = CENTERS.get(subject, MIDDLE)
    side = box.width / width
    left, top = box.center[0] - x * side, box.center[1] - y * side
    return Box(left, top, left + side, top + side)


def fitted(center: tuple[float, float], side: float, width: int, height: int, multiple: int = 1) -> Box:
    """Return the square in whole pixels, shrunk by up to SHRINK and shifted so that as little of it as possible is
    outside the picture."""
    room = min(width, height)
    if side > room:
        side = max(room, side / SHRINK)
    if side <= room:
        side = max(multiple, side - side % multiple)
    return square(center, side, multiple).shifted_inside(width, height)


def gaps_between(samples: Sequence[SampledDetection], clip_end: Fraction) -> tuple[tuple[Fraction, Fraction], ...]:
    """Return the intervals without the subject that are long enough to count. They reach from the last sample with the
    subject to the next one, because a held pose must be one that was seen."""
    gaps_between = []
    before = Fraction(-1)
    position = 0
    for missing, run in itertools.groupby(samples, lambda sample: sample.detection is None):
        times = [sample.time for sample in run]
        position += len(times)
        end = samples[position].time if position < len(samples) else clip_end
        if missing and len(times) > 1 and end - times[0] >= MAX_GAP_S:
            gaps_between.append((before, end))
        before = times[-1]
    return tuple(gaps_between)


def not_found(subject: str, name: str, option: str = "--crop") -> InputError:
    """Return the error for a picture or clip without a subject.  option: the option that sets its square."""
    return InputError(
        f"no {subject} found in {name}",
        f"Where the {subject} fills the frame already, give {option} none; else {option} X,Y,SIZE, in pixels.",
    )


# Extent of a head with hair around the centre of its face, in widths of the face as HOG measures it.
HEAD = Box(-0.75, -0.95, 0.75, 0.75)
# Least width of a source's face, in sides of the square: smaller, it would have too few of the network's pixels.
LOOSEST = 0.3
# Room in widths of its box that a subject always has, however near the picture's edge is.
LEAST = 0.15
# Largest shift of a square into the picture, in its sides; what is still outside is filled by reflection.
MOVED = 0.08

Move = tuple[float, float]
"""Displacement of the subject from the reference frame, right and down, in widths of its box."""


@dataclass(frozen=True, slots=True)
class Room:
    """How far the subject of a source may move before its head leaves the square, in half sides; none is negative."""

    left: float
    up: float
    right: float
    down: float


def excursions(shots: Sequence[ClipCrop], head_motion: float) -> list[Move]:
    """Return the moves that the source's subject will make, from the detections in the driving video.

    head_motion: share of the head's travel that is added back where the square follows.
    """
    moves: list[Move] = []
    for shot in shots:
        seen = [(float(one.time), one.detection.box) for one in shot.samples if one.detection is not None]
        first: TurnedSquare | None = None
        width = float(np.median([box.width for _, box in seen]))
        places: list[Move] = []
        for time, box in seen:
            if shot.path is None:
                places.append((box.center[0] / width, box.center[1] / width))
                continue
            at = shot.path.at(time)
            first = first or at
            put_back = travel(at, first, head_motion)
            sides = first.side / width
            x, y = (
                sides * ((box.center[axis] - at.center[axis]) / at.side + put_back.shift[axis] / 2) for axis in (0, 1)
            )
            places.append((x, y))
        origin = places[0]
        moves += [(x - origin[0], y - origin[1]) for x, y in places]
    return moves


def source_crop(
    pixels: NDArray[np.uint8],
    detector: Detector,
    width: float,
    moves: Sequence[Move],
    *,
    subject: str = "face",
    name: str = "the picture",
    face: str = LARGEST,
) -> Crop:
    """Return the square around a confidently detected subject of a picture (H, W, 3), with room for its moves.

    width: width of the subject's box, in sides of the square; less if the moves need more room, but at least LOOSEST.
    face: which subject, see `fommctl.detection.choice`.  Raises InputError if there is no such subject.
    """
    found, number, boxes = _subject(pixels, detector, subject, name, face)
    box = refined_box(pixels, found.box, detector)
    side = max(1 / width, min(_side_for(moves, subject), 1 / LOOSEST)) * box.width
    wanted = ideal(box, box.width / side, subject)
    placed = square(wanted.center, side)
    inside = placed.shifted_inside(pixels.shape[1], pixels.shape[0])
    limit = round(MOVED * side)
    x, y = (
        float(np.clip(new - old, -limit, limit)) for new, old in ((inside.left, placed.left), (inside.top, placed.top))
    )
    return Crop(placed.shifted(x, y), len(boxes), found.score, found, number, boxes)


def room_in(found: Crop, width: int) -> Room:
    """Return how far the subject may move in its square, in a picture of this width (pixels).

    Its head stays in the square and in the picture. It also moves away from an edge by no more than its distance to
    that edge: beyond the edge the picture is reflected, with a second head.
    """
    box, at = found.box, found.subject.box
    x, y = at.center
    head = Box(*(middle + side * at.width for middle, side in zip((x, y, x, y), HEAD.sides, strict=True)))
    beside = min(head.left, width - head.right)
    left, right = min(head.left - box.left, beside), min(box.right - head.right, beside)
    up, down = min(head.top - box.top, head.top), min(box.bottom - head.bottom, head.top)
    return Room(*(2 * max(LEAST * at.width, each) / box.width for each in (left, up, right, down)))


def _side_for(moves: Sequence[Move], subject: str) -> float:
    """Return the side of the square, in widths of the subject, that contains its head in all moves except outliers."""
    if not moves:
        return 0.0
    x, y = CENTERS.get(subject, MIDDLE)
    left, up = np.minimum(0, np.percentile(moves, OUTER, axis=0))
    right, down = np.maximum(0, np.percentile(moves, 100 - OUTER, axis=0))
    across = max((-HEAD.left - left) / x, (HEAD.right + right) / (1 - x))
    return float(max(across, (-HEAD.top - up) / y, (HEAD.bottom + down) / (1 - y)))
