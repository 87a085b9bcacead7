"""Finding what is to be cut out of one file: the first pass over a video, or one look at a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.api.values import Detection
from fommctl.crop.config import CropConfig
from fommctl.detection.cuts import Cut, CutFinder
from fommctl.detection.framing import LONGEST_SIDE, fitted, scaled, spread
from fommctl.detection.search import all_detections, looked_at_again
from fommctl.detection.subjects import SURE, subjects
from fommctl.detection.tracks import BoxTrack, Sample, follow_first_box, union
from fommctl.media.boxes import Box
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame, Reader
from fommctl.presets.preset import Framing

Tell = Callable[[int, int | None], None]
"""tell(frames done, frames in all or None)."""
# Small subjects beside a large one show only where the corners are searched by themselves, which takes five times as
# long: that is done this often (seconds), and as long as there is more than one subject.
THOROUGH = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One clip to be cut: frames with start <= time < end, seconds since the first frame of the source."""

    start: Fraction
    end: Fraction
    frames: int
    box: Box
    """The square: even whole pixels of the displayed picture; may reach beyond it."""
    score: float
    """Mean over the detections, comparable within one detector only."""


@dataclass(frozen=True, slots=True)
class _Shot:
    samples: Sequence[Sample]
    end: Fraction
    end_frame: int
    """Of the shot, exclusive."""
    content: Box | None = None
    """Where its picture lies between black bars."""


def pieces_of_video(
    info: VideoInfo, config: CropConfig, detector: Detector, framing: Framing | None, tell: Tell
) -> list[Piece]:
    """Every subject of a video in every shot that lasts long enough, by time. Raises InputError.

    Holds one frame, thumbnails of a quarter of a second and the boxes of one shot.
    """
    pieces = []
    for shot in _shots(info, config, detector, tell):
        for track in follow_first_box(shot.samples, iou=config.iou, max_gap=config.max_gap):
            piece = _piece(track, shot, info, config, framing)
            shortest = piece.end - piece.start < config.min_duration
            if not (shortest if config.min_frames is None else piece.frames < config.min_frames):
                pieces.append(piece)
    best = max((piece.score for piece in pieces), default=0.0)
    return [piece for piece in pieces if piece.score >= SURE * best]


def pieces_of_picture(
    pixels: NDArray[np.uint8], config: CropConfig, detector: Detector, framing: Framing | None
) -> list[Piece]:
    """Every sure subject of a picture (H, W, 3), from left to right."""
    found = subjects(all_detections(pixels, detector))
    boxes = [(looked_at_again(pixels, one.box, detector), one.score) for one in found]
    squares = [(square_of([box], config.margin, framing, *pixels.shape[1::-1]), score) for box, score in boxes]
    pieces = [Piece(Fraction(0), Fraction(0), 1, box, score) for box, score in squares]
    return sorted(pieces, key=lambda piece: (piece.box.left, piece.box.top))


def square_of(boxes: Sequence[Box], margin: float, framing: Framing | None, width: int, height: int) -> Box:
    """The square around a track's boxes in a picture of this size: as the framing has it, and at least the union of
    the boxes with the margin around it, in parts of its longer side. Moved and shrunk as `framing.fitted` says."""
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
    return fitted(center, side, width, height, multiple=2)


def _piece(track: BoxTrack, shot: _Shot, info: VideoInfo, config: CropConfig, framing: Framing | None) -> Piece:
    first, last = track.samples[0], track.samples[-1]
    to_the_end = last is shot.samples[-1]
    end, end_frame = (shot.end, shot.end_frame) if to_the_end else (last.end, last.frame + 1)
    place = shot.content or Box(0, 0, info.width, info.height)
    boxes = [box.shifted(-place.left, -place.top) for box in track.boxes]
    box = square_of(boxes, config.margin, framing, round(place.width), round(place.height))
    box = box.shifted(place.left, place.top)
    return Piece(first.time, end, end_frame - first.frame, box, track.score)


def _shots(info: VideoInfo, config: CropConfig, detector: Detector, tell: Tell) -> Iterator[_Shot]:
    """The video shot by shot, searched `config.rate` times a second and wherever a shot may begin."""
    scale = min(1.0, LONGEST_SIDE / max(info.width, info.height))
    size = max(1, round(info.width * scale)), max(1, round(info.height * scale))
    cuts = CutFinder(info.rate)
    search = _Search(info, config, detector)
    samples: list[Sample] = []
    frame = None
    with Reader(info.path, fps=config.fps, size=size, deinterlace=config.deinterlace) as reader:
        content: Box | None = None
        for frame in reader:
            if frame.content != content:
                # The picture has another shape from here on: whatever is in it, this is another clip.
                yield from _ended(samples, cuts.finish() if config.cuts else [], frame.time, frame.index, content)
                samples, cuts, content = [], CutFinder(info.rate), frame.content
                search.begin()
            found = cuts.take(frame) if config.cuts else []
            samples += search.look(frame, new_shot=cuts.suspicious)
            for cut in found:
                shot, samples = _divided(samples, cut, content)
                yield shot
            tell(frame.index + 1, info.frames)
    if frame is not None:
        ends = cuts.finish() if config.cuts else []
        yield from _ended(samples, ends, frame.time + frame.duration, frame.index + 1, content)


def _ended(
    samples: list[Sample], cuts: Sequence[Cut], end: Fraction, end_frame: int, content: Box | None
) -> Iterator[_Shot]:
    """What is left of a run of frames that ends here, shot by shot."""
    for cut in cuts:
        shot, samples = _divided(samples, cut, content)
        yield shot
    yield _Shot(samples, end, end_frame, content)


def _divided(samples: list[Sample], cut: Cut, content: Box | None) -> tuple[_Shot, list[Sample]]:
    before = [sample for sample in samples if sample.frame < cut.frame]
    return _Shot(before, cut.time, cut.frame, content), samples[len(before) :]


class _Search:
    """Chooses the frames that are searched, and how thoroughly."""

    def __init__(self, info: VideoInfo, config: CropConfig, detector: Detector) -> None:
        self._info = info
        self._rate = config.rate
        self._detector = detector
        self._due = self._thorough = Fraction(0)
        self._several = False

    def begin(self) -> None:
        """Look at the next frame, and thoroughly."""
        self._due = self._thorough = Fraction(0)

    def look(self, frame: Frame, *, new_shot: bool) -> list[Sample]:
        """The sample of this frame, if it is due or may begin a shot."""
        if frame.time < self._due and not new_shot:
            return []
        self._due = (frame.time * self._rate // 1 + 1) / self._rate
        detections = scaled(self._detections(frame, new_shot), self._info, frame.pixels)
        return [Sample(frame.index, frame.time, frame.time + frame.duration, tuple(detections))]

    def _detections(self, frame: Frame, new_shot: bool) -> list[Detection]:
        if new_shot or self._several or frame.time >= self._thorough:
            self._thorough = frame.time + THOROUGH
            found = all_detections(frame.pixels, self._detector)
            self._several = len(found) > 1
            return found
        return self._detector.detect([frame.pixels])[0]
