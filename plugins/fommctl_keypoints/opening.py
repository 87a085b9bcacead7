"""Mouths and eyelids: whether they open together with the driving video's, and how far.

The opening of a mouth is the distance of the middles of the inner lips, that of the eyelids the mean distance of upper
and lower lid over both eyes, each over the distance of the outer corners of the eyes in the same frame, so that sizes
of faces and frames cancel. Heads that turn aside shorten what it is measured by; both sides turn alike.
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
    """Numbers of the landmarks that are measured, as a detector counts them."""

    corners: tuple[int, int]
    """The outer corners of the eyes."""
    mouth: Pairs
    eyelids: Pairs


LANDMARKS: Mapping[int, Landmarks] = {
    # iBUG 300-W: FAN and dlib's predictor.
    68: Landmarks((36, 45), mouth=((62, 66),), eyelids=((37, 41), (38, 40), (43, 47), (44, 46))),
    # MediaPipe's face mesh: the same places.
    478: Landmarks((33, 263), mouth=((13, 14),), eyelids=((160, 144), (158, 153), (385, 380), (387, 373))),
}
"""Sets of landmarks by their number; with any other number nothing is measured."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something in a face that opens and closes."""

    name: str
    """A field of `Landmarks`."""
    least: float
    """Standard deviation of the driving video's opening below which it is taken for still. Measured on still faces that
    were shifted, given noise and compressed: dlib's landmarks make 0.010 of the mouth and 0.004 of the eyelids."""


MOUTH, EYELIDS = Feature("mouth", 0.010), Feature("eyelids", 0.006)
FEWEST = 5
"""Frames that a clip needs: two or three lie on a line by chance."""
ROUNDING = 1e-20
"""Variance below which a result has not moved at all."""


class OpeningCorrelation:
    """Pearson's correlation of the openings of prediction and driving video over the frames of a clip.

    Clips whose driving video keeps still (see `Feature.least`), or shows a face in fewer than FEWEST frames, have no
    score. Frames whose driving video shows no face are not counted. Where only the prediction has none, the opening
    stays at the mean of its other frames, so that no model gains by losing the face; a prediction that never moves has
    a correlation of 0.
    """

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _OpeningScorer(keypoints_of(clip), self._feature, slope=False)


class OpeningGain:
    """How much further the prediction opens where the driving video opens further by 1: the slope of the least-squares
    line of the prediction's opening over the driving one, with an intercept.

    Movement that does not follow the driving video adds nothing, and what the landmarks of the driving video are off by
    makes it smaller, never larger. Clips and frames count as for the correlation; a prediction that never moves has a
    gain of 0.
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
    """Return each frame's opening, (N,), from landmarks (N, K, 2); NaN where there is no face, or K is none that is
    known."""
    numbers = LANDMARKS.get(points.shape[1])
    if numbers is None:
        return np.full(len(points), np.nan)
    pairs: Pairs = getattr(numbers, feature.name)
    width = _distance(points, numbers.corners)
    opening = np.mean([_distance(points, pair) for pair in pairs], axis=0)
    return np.where(width > 0, opening / np.where(width > 0, width, 1), np.nan)


def followed(prediction: Scores, driving: Scores, *, least: float, slope: bool) -> tuple[float | None, int]:
    """Return the correlation of two series (N,), or the slope of the first over the second, and how many frames it
    rests on.

    None where the second keeps still (`least`) or is short; NaN is a frame without a face, see `OpeningCorrelation`.
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
