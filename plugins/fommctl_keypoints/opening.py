"""Whether mouth and eyelids open together with the driving video's, and how far.

The opening of the mouth is the distance between the middles of the inner lips, that of the eyelids the mean distance
between upper and lower lid over both eyes. Both are relative to the distance between the outer corners of the eyes in
the same frame, so that the sizes of faces and frames cancel out. A turned head shortens that distance, but does so in
the prediction and the driving video alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, KeypointSource, MetricClip
from fommctl_keypoints.scoring import Points, Scores, both, joined, keypoints_of

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Indices of the measured landmarks within a detector's set."""

    corners: tuple[int, int]
    """The outer corners of the eyes."""
    mouth: Pairs
    eyelids: Pairs


LANDMARKS: Mapping[int, Landmarks] = {
    # iBUG 300-W: FAN and dlib's predictor.
    68: Landmarks((36, 45), mouth=((62, 66),), eyelids=((37, 41), (38, 40), (43, 47), (44, 46))),
    # MediaPipe's face mesh: the same points.
    478: Landmarks((33, 263), mouth=((13, 14),), eyelids=((160, 144), (158, 153), (385, 380), (387, 373))),
}
"""Indices by the number of landmarks in a set; openings are not measured for other sets."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A part of the face that opens and closes."""

    name: str
    """Name of a field of `Landmarks`."""
    least: float
    """Standard deviation of the driving opening below which it counts as still. On still faces that were shifted, given
    noise and compressed, dlib's landmarks vary by 0.010 (mouth) and 0.004 (eyelids)."""


MOUTH, EYELIDS = Feature("mouth", 0.010), Feature("eyelids", 0.006)
FEWEST = 5
"""Least number of frames of a clip: two or three lie on a line by chance."""
ROUNDING = 1e-20
"""Variance below which a prediction counts as not moving at all."""


class OpeningCorrelation:
    """Pearson's correlation of the openings of prediction and driving video over the frames of a clip, in [-1, 1].

    Clips whose driving opening is still (see `Feature.least`) or known in fewer than FEWEST frames are not scored.
    Frames without a driving face are ignored. In frames without a predicted face, the opening is taken to be the mean
    of the other frames, so that no model gains by losing the face. A prediction that never moves has a correlation
    of 0.
    """

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _OpeningScorer(keypoints_of(clip), self._feature, slope=False)


class OpeningGain:
    """How much the predicted opening changes when the driving opening changes by 1: the slope of the least-squares line
    of the one over the other, with an intercept.

    Movement unrelated to the driving video does not change it, and errors in the driving landmarks make it smaller,
    never larger. Clips and frames are selected as in `OpeningCorrelation`; a prediction that never moves has a gain
    of 0.
    """

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _OpeningScorer(keypoints_of(clip), self._feature, slope=True)


class _OpeningScorer:
    def __init__(self, source: KeypointSource, feature: Feature, *, slope: bool) -> None:
        self._source, self._feature, self._slope = source, feature, slope
        self._prediction: list[Scores] = []
        self._driving: list[Scores] = []

    def add(self, chunk: FrameChunk) -> None:
        prediction, driving = both(self._source, chunk)
        self._prediction.append(openings(prediction, self._feature))
        self._driving.append(openings(driving, self._feature))

    def finish(self) -> ClipScores:
        prediction, driving = joined(self._prediction), joined(self._driving)
        value, counted = followed(prediction, driving, least=self._feature.least, slope=self._slope)
        return ClipScores(np.empty(0), value, 0 if value is None else counted, len(driving))


def openings(points: Points, feature: Feature) -> Scores:
    """Return the opening in each frame, (N,), relative to the distance between the eyes' outer corners.

    points: (N, K, 2) in pixels. NaN for frames without a face, and for all if K is not in `LANDMARKS`.
    """
    numbers = LANDMARKS.get(points.shape[1])
    if numbers is None:
        return np.full(len(points), np.nan)
    pairs: Pairs = getattr(numbers, feature.name)
    width = _distance(points, numbers.corners)
    opening = np.mean([_distance(points, pair) for pair in pairs], axis=0)
    return np.where(width > 0, opening / np.where(width > 0, width, 1), np.nan)


def followed(prediction: Scores, driving: Scores, *, least: float, slope: bool) -> tuple[float | None, int]:
    """Return the correlation of two series (N,), or with `slope` the slope of the first over the second, and the number
    of frames that it is based on.

    NaN marks frames without a face, see `OpeningCorrelation`. The result is None if the second series is too short or
    its standard deviation is below `least`.
    """
    counted = np.isfinite(driving)
    number = int(counted.sum())
    if number < FEWEST or driving[counted].std() < least:
        return None, number
    driven = driving[counted] - driving[counted].mean()
    result = prediction[counted]
    there = np.isfinite(result)
    result = np.where(there, result - result[there].mean(), 0.0) if there.any() else np.zeros(number)
    common, energy, moved = (float(each) for each in (driven @ result, driven @ driven, result @ result))
    if slope:
        return common / energy, number
    return (0.0 if moved < ROUNDING * number else common / math.sqrt(energy * moved)), number


def _distance(points: Points, pair: tuple[int, int]) -> Scores:
    one, other = pair
    lengths: Scores = np.linalg.norm(points[:, one] - points[:, other], axis=-1)
    return lengths
