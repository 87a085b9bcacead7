"""Finds the pieces to cut out of one file, in a first pass over a video, or in a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection, Detector
from fommctl.crop.config import CropConfig
from fommctl.detection.choice import left_to_right, numbered_tracks
from fommctl.detection.framing import LONGEST_SIDE, fitted, scaled, searched_size, spread
from fommctl.detection.search import detect_in_tiles, refined_box
from fommctl.detection.shots import Cut, CutFinder
from fommctl.detection.tracking import (
    SURE,
    BoxTrack,
    Sample,
    confident_detections,
    follow_first_box,
    link_detections,
    persistent_tracks,
    union,
)
from fommctl.media.boxes import Box
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame, Reader
from fommctl.presets.sections import Framing
from fommctl.workers import Progress

# Small subjects beside a large one are found only if the corners are searched separately, which takes five times as
# long. Seconds between such searches, and seconds between them while fewer subjects are found than in the last one.
THOROUGH, CLOSER = 1, Fraction(1, 2)
# Side in pixels of the small frames that are compared to find cuts.
GLANCE = 160
# Largest factor by which a square is tightened to keep it inside the picture, or the subject's panel of a grid: a close
# view is better than repeated borders or other people.
TIGHTER = 1.5


@dataclass(frozen=True, slots=True)
class Piece:
    """One clip to cut: frames with start <= time < end, in seconds since the first frame of the source."""

    start: Fraction
    end: Fraction
    frames: int
    box: Box
    """Square in pixels of the displayed picture, with even sides and position; may reach beyond the picture."""
    score: float
    """Mean score of the detections, comparable within one detector only."""
    face: int | None = None
    """Number of the subject for `animate --face` and `--driving-face`; None if these do not count it."""


@dataclass(frozen=True, slots=True)
class _Shot:
    samples: Sequence[Sample]
    end: Fraction
    end_frame: int
    """Number of the first frame after the shot."""
    content: Box | None = None
    """Part of the frame inside black bars; None for all of it."""
    seams: Seams | None = None
    """Borders of panels; None if no frame has several subjects."""


def pieces_of_video(
    info: VideoInfo, config: CropConfig, detector: Detector, framing: Framing | None, report: Progress
) -> list[Piece]:
    """Return the subjects in each shot of a video that are visible long enough, in order of time.

    report: called with the number of decoded frames.  Raises InputError if the video cannot be read. Memory does not
    grow with the video's length: it holds one frame, thumbnails of a quarter of a second, and the boxes of one shot.
    """
    pieces = []
    for shot in _shots(info, config, detector, report):
        tracks = follow_first_box(shot.samples, iou=config.iou, max_gap=config.max_gap)
        numbers = _numbers(shot.samples)
        for track in tracks:
            neighbours = [union(other.boxes) for other in tracks if other is not track and _overlap(track, other)]
            piece = _piece(track, neighbours, shot, info, config, framing)
            piece = replace(piece, face=numbers.get(id(track.detections[0])))
            pieces += [part for part in _parts(piece, config) if not _too_short(part, config)]
    best = max((piece.score for piece in pieces), default=0.0)
    return [piece for piece in pieces if piece.score >= SURE * best]


def _numbers(samples: Sequence[Sample]) -> dict[int, int]:
    """Number the subjects of a shot as `animate` does, whose tracks follow them through the picture.

    Returns the numbers by the id() of each detection.
    """
    times = [sample.time for sample in samples]
    tracks = persistent_tracks(link_detections(times, [sample.detections for sample in samples]), len(samples))
    return {
        id(detection): number
        for number, track in enumerate(numbered_tracks(tracks, times), 1)
        for detection in track.detections
    }


def _overlap(one: BoxTrack, other: BoxTrack) -> bool:
    """Return whether two tracks overlap in time."""
    return one.samples[0].time < other.samples[-1].end and other.samples[0].time < one.samples[-1].end


def _parts(piece: Piece, config: CropConfig) -> list[Piece]:
    """Divide a piece that is longer than `--max-duration` into consecutive ones."""
    length = piece.end - piece.start
    if config.max_duration is None or length <= config.max_duration:
        return [piece]
    count = math.ceil(length / config.max_duration)
    starts = [piece.start + number * config.max_duration for number in range(count)]
    ends = [*starts[1:], piece.end]
    return [
        replace(piece, start=start, end=end, frames=max(1, round(piece.frames * float((end - start) / length))))
        for start, end in zip(starts, ends, strict=True)
    ]


def _too_short(piece: Piece, config: CropConfig) -> bool:
    if config.min_frames is not None:
        return piece.frames < config.min_frames
    return piece.end - piece.start < config.min_duration


def pieces_of_picture(
    pixels: NDArray[np.uint8], config: CropConfig, detector: Detector, framing: Framing | None
) -> list[Piece]:
    """Return the confidently detected subjects of a picture (H, W, 3) uint8, from left to right."""
    found = left_to_right(confident_detections(detect_in_tiles(pixels, detector)))
    boxes = [(refined_box(pixels, one.box, detector), one.score) for one in found]
    squares = [(square_of([box], config.margin, framing, *pixels.shape[1::-1]), score) for box, score in boxes]
    return [Piece(Fraction(0), Fraction(0), 1, box, score, face) for face, (box, score) in enumerate(squares, 1)]


def square_of(
    boxes: Sequence[Box],
    margin: float,
    framing: Framing | None,
    width: int,
    height: int,
    panel: Box | None = None,
) -> Box:
    """Return the square for a track's boxes: of the framing's size, and at least their union with a margin.

    It is moved and tightened (see TIGHTER) to stay inside the panel and the picture; if that is not enough, it is
    moved and shrunk by `framing.fitted`.
    margin: on each side of the union, divided by its longer side.  width, height: of the picture, in pixels.
    panel: the part of a grid of pictures that shows the subject; None for the whole picture.
    """
    whole = union(boxes)
    center, side = whole.center, (1 + 2 * margin) * max(whole.width, whole.height)
    if framing is not None:
        (x, y), framed = spread(boxes, framing.width, framing.subject)
        room_x, room_y = ((max(framed, side) - (1 + 2 * margin) * length) / 2 for length in (whole.width, whole.height))
        center = (
            min(max(x, center[0] - room_x), center[0] + room_x),
            min(max(y, center[1] - room_y), center[1] + room_y),
        )
        side = max(framed, side)
    for place in (panel, Box(0, 0, width, height)):
        if place is None:
            continue
        room = min(place.width, place.height)
        if max(whole.width, whole.height) <= room and side <= TIGHTER * room:
            inner = (center[0] - place.left, center[1] - place.top)
            box = fitted(inner, min(side, room), round(place.width), round(place.height), multiple=2)
            return box.shifted(place.left, place.top)
    return fitted(center, side, width, height, multiple=2)


def _piece(
    track: BoxTrack,
    neighbours: Sequence[Box],
    shot: _Shot,
    info: VideoInfo,
    config: CropConfig,
    framing: Framing | None,
) -> Piece:
    first, last = track.samples[0], track.samples[-1]
    to_the_end = last is shot.samples[-1]
    end, end_frame = (shot.end, shot.end_frame) if to_the_end else (last.end, last.frame + 1)
    place = shot.content or Box(0, 0, info.width, info.height)
    panel = None
    if shot.seams is not None and shot.content is None:
        panel = shot.seams.panel(union(track.boxes), neighbours, info.width, info.height)
    boxes = [box.shifted(-place.left, -place.top) for box in track.boxes]
    box = square_of(boxes, config.margin, framing, round(place.width), round(place.height), panel)
    box = box.shifted(place.left, place.top)
    return Piece(config.start + first.time, config.start + end, end_frame - first.frame, box, track.score)


class Seams:
    """Finds borders between the panels of a grid of pictures, over the searched frames of a shot.

    A border is a straight line between two subjects, and alongside both, across which the mean difference of
    neighbouring pixels is large.
    """

    STRENGTH, CLARITY, SHARE = 3.0, 4.0, 0.7
    """Least difference across a border in levels of 255; its least ratio to the median of all lines between the
    subjects; share of the line's pixels that must have it."""

    def __init__(self) -> None:
        self._steps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._frames = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Add a searched frame (H, W, 3)."""
        green = pixels[..., 1].astype(np.int16)
        across, down = np.abs(np.diff(green, axis=1)), np.abs(np.diff(green, axis=0))
        if self._steps is None:
            self._steps = across.astype(np.float32), down.astype(np.float32)
        else:
            self._steps[0][...] += across
            self._steps[1][...] += down
        self._frames += 1

    def panel(self, subject: Box, neighbours: Sequence[Box], width: int, height: int) -> Box | None:
        """Return the subject's part of the picture, limited by borders towards its neighbours; None without borders.

        subject, neighbours: boxes in pixels of the picture, which is width x height.
        """
        if self._steps is None:
            return None
        scale = self._steps[1].shape[1] / width
        # Left, top, right and bottom, like the sides of a box: index `axis` is the near side, `axis + 2` the far one.
        limits = [0.0, 0.0, float(width), float(height)]
        for other in neighbours:
            own, theirs, around = subject.sides, other.sides, union([subject, other]).sides
            gaps = [max(theirs[axis] - own[axis + 2], own[axis] - theirs[axis + 2]) for axis in (0, 1)]
            axis = 0 if gaps[0] >= gaps[1] else 1
            is_after = theirs[axis] > own[axis]
            between = (own[axis + 2], theirs[axis]) if is_after else (theirs[axis + 2], own[axis])
            steps = self._steps[1].T if axis else self._steps[0]
            line = self._line(steps, scale, between, (around[1 - axis], around[3 - axis]))
            if line is not None and is_after:
                limits[axis + 2] = min(limits[axis + 2], line)
            elif line is not None:
                limits[axis] = max(limits[axis], line)
        left, top, right, bottom = limits
        # Rounded inwards to even pixels, as all squares are.
        box = Box(2 * math.ceil(left / 2), 2 * math.ceil(top / 2), 2 * (right // 2), 2 * (bottom // 2))
        return None if box == Box(0, 0, width, height) else box

    def _line(
        self, steps: NDArray[np.float32], scale: float, between: tuple[float, float], along: tuple[float, float]
    ) -> float | None:
        """Return the position of the border among the columns of `steps`, or None.

        between: range of columns.  along: range of rows.  Both in pixels of the picture, of which a pixel is `scale` of
        `steps`.
        """
        first, last = (max(0, round(scale * place)) for place in between)
        # Longer than the subjects, whose own outlines are no borders.
        more = (along[1] - along[0]) / 2
        low, high = max(0, round(scale * (along[0] - more))), max(0, round(scale * (along[1] + more)))
        part = steps[low:high, first:last] / self._frames
        if part.shape[0] < 2 or part.shape[1] < 2:
            return None
        levels = np.quantile(part, 1 - self.SHARE, axis=0)
        best = int(levels.argmax())
        if levels[best] < max(self.STRENGTH, self.CLARITY * float(np.median(levels))):
            return None
        return (first + best + 1) / scale


def _shots(info: VideoInfo, config: CropConfig, detector: Detector, report: Progress) -> Iterator[_Shot]:
    """Yield the shots of a video, searched `config.rate` times a second and wherever a shot may begin."""
    cuts = CutFinder(info.rate)
    search = _Search(info, config, detector)
    samples: list[Sample] = []
    with Reader(
        info.path, fps=config.fps, start=config.start, end=config.end, deinterlace=config.deinterlace
    ) as reader:
        glance, whole = (reader.view(size=searched_size(info, side)) for side in (GLANCE, LONGEST_SIDE))
        content: Box | None = None
        index, end = 0, Fraction(0)
        for decoded in reader.decoded():
            small = decoded.picture(glance)
            if small is None:
                continue
            frame = Frame(small.pixels, index, decoded.time, decoded.duration, small.content)
            if frame.content != content:
                # Black bars begin, end or change: always a new shot.
                yield from _ended(samples, cuts.finish() if config.cuts else [], frame.time, index, content, search)
                samples, cuts, content = [], CutFinder(info.rate), frame.content
                search.begin()
            found = cuts.take(frame) if config.cuts else []
            if search.is_due(frame, new_shot=cuts.suspicious) and (picture := decoded.picture(whole)) is not None:
                samples.append(search.look(replace(frame, pixels=picture.pixels), new_shot=cuts.suspicious))
            for cut in found:
                shot, samples = _divided(samples, cut, content, search)
                yield shot
            index, end = index + 1, frame.time + frame.duration
            report(index, info.frames)
    if index:
        yield from _ended(samples, cuts.finish() if config.cuts else [], end, index, content, search)


def _ended(
    samples: list[Sample], cuts: Sequence[Cut], end: Fraction, end_frame: int, content: Box | None, search: _Search
) -> Iterator[_Shot]:
    """Yield the remaining shots of a run of frames that ends here."""
    for cut in cuts:
        shot, samples = _divided(samples, cut, content, search)
        yield shot
    yield _Shot(samples, end, end_frame, content, search.take_seams())


def _divided(samples: list[Sample], cut: Cut, content: Box | None, search: _Search) -> tuple[_Shot, list[Sample]]:
    before = [sample for sample in samples if sample.frame < cut.frame]
    return _Shot(before, cut.time, cut.frame, content, search.take_seams()), samples[len(before) :]


class _Search:
    """Chooses the frames to search, and how thoroughly."""

    def __init__(self, info: VideoInfo, config: CropConfig, detector: Detector) -> None:
        self._info = info
        self._rate = config.rate
        self._detector = detector
        self._due = self._thorough = self._closer = Fraction(0)
        self._expected = 0
        """Number of subjects in the last thoroughly searched frame."""
        self._seams: Seams | None = None

    def begin(self) -> None:
        """Reset, so that the next frame is searched thoroughly."""
        self._due = self._thorough = Fraction(0)
        self._seams = None

    def take_seams(self) -> Seams | None:
        """Return the borders of the shot that ends, and start to collect those of the next one."""
        seams, self._seams = self._seams, None
        return seams

    def is_due(self, frame: Frame, *, new_shot: bool) -> bool:
        """Return whether to search this frame.  new_shot: whether it may be the first of a shot."""
        return frame.time >= self._due or new_shot

    def look(self, frame: Frame, *, new_shot: bool) -> Sample:
        """Search a frame; its detections are in pixels of the whole picture."""
        self._due = (frame.time * self._rate // 1 + 1) / self._rate
        detections = self._detections(frame, new_shot)
        if len(detections) > 1:
            self._seams = self._seams or Seams()
            self._seams.add(frame.pixels)
        found = scaled(detections, self._info, frame.pixels)
        return Sample(frame.index, frame.time, frame.time + frame.duration, tuple(found))

    def _detections(self, frame: Frame, new_shot: bool) -> list[Detection]:
        found = None
        if not new_shot and frame.time < self._thorough:
            found = self._detector.detect([frame.pixels])[0]
            if self._expected < 2 or len(found) >= self._expected or frame.time < self._closer:
                return found
            self._closer = frame.time + CLOSER
        else:
            self._thorough = frame.time + THOROUGH
        found = detect_in_tiles(frame.pixels, self._detector, found)
        self._expected = len(found)
        return found
