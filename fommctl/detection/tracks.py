"""Which detections of a shot are one subject, by the published rule: overlap with the first box of a track.

After `crop-video.py` of the published code (Siarohin et al. 2019): a detection belongs to a track whose first box it
overlaps by more than an IoU of 0.25; a track lasts while there is such a detection. So a clip never follows a subject
through the picture: where it moves on, a new track begins. Two things are added, for detectors that are asked a few
times a second and that lose a turned head for moments: a track outlives a short gap, unless something else is found
where it was: no clip shows two people, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean

from fommctl.api.values import Detection
from fommctl.media.boxes import Box

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
        """Seen once more."""
        self.samples.append(sample)
        self.detections.append(detection)

    def expected(self, time: Fraction) -> tuple[float, float]:
        """Where its centre would be if it went on as between the last two detections."""
        x, y = self.detections[-1].box.center
        if len(self.samples) < 2:
            return x, y
        before_x, before_y = self.detections[-2].box.center
        steps = min(2.0, float((time - self.samples[-1].time) / (self.samples[-1].time - self.samples[-2].time)))
        return x + steps * (x - before_x), y + steps * (y - before_y)


def follow_first_box(samples: Sequence[Sample], *, iou: float, max_gap: Fraction) -> list[BoxTrack]:
    """The tracks of one shot, in the order of their beginning.

    iou: a detection of the subject overlaps the track's first box by more than this.  max_gap: seconds after a
    sighting at which a searched frame without the subject ends its track; 0 as published.
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
    """Each subject of a frame once, the surest first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if all(detection.box.iou(other.box) <= TWICE for other in kept):
            kept.append(detection)
    return kept


def _joined(
    tracks: Sequence[BoxTrack], time: Fraction, detections: Sequence[Detection], iou: float
) -> dict[int, BoxTrack]:
    """The track of each detection (by number) that has one: nearest to where it is expected, nearest pairs first."""
    pairs = [
        (_distance(track, time, detection.box), number, position)
        for position, track in enumerate(tracks)
        for number, detection in enumerate(detections)
        if detection.box.iou(track.first) > iou
    ]
    joined: dict[int, BoxTrack] = {}
    for _, number, position in sorted(pairs):
        if number not in joined and all(other is not tracks[position] for other in joined.values()):
            joined[number] = tracks[position]
    return joined


def _distance(track: BoxTrack, time: Fraction, box: Box) -> float:
    """From where the track is expected, in widths of its last box."""
    return math.dist(track.expected(time), box.center) / max(1.0, track.detections[-1].box.width)


def _taken_over(
    tracks: Sequence[BoxTrack], joined: dict[int, BoxTrack], detections: Sequence[Detection], iou: float
) -> set[int]:
    """The tracks (by id) that end because something else is where they were: their subject has moved on from its first
    box, or is hidden behind another, and who appears there next may be anybody.

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
    """The smallest box around all."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )
