"""Keypoint jitter: how much keypoints shake from frame to frame.

With p_t a keypoint in frame t, its second difference is a_t = p_(t+1) - 2 p_t + p_(t-1): zero in steady motion. For a
rate of 25 frames/s or 30 the same shaking gives other numbers, so clips of one rate are compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, KeypointSource, MetricClip, mean_of_frames
from fommctl_keypoints.scoring import Points, Scores, both, found, keypoints_of, mean_where


class JitterAgainstTruth:
    """Mean over keypoints and frames of |a_t - b_t|, a of the prediction and b of the truth.

    It is the acceleration error of human motion (Kanazawa et al. 2019), in pixels. The score of frame t needs its two
    neighbours, so the first and the last frame have none; nor has a keypoint that is missing in one of the three on
    either side.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """A scorer for this clip."""
        return _JitterScorer(keypoints_of(clip), against_truth=True)


class PlainJitter:
    """Mean over keypoints and frames of |a_t|, for results without a truth.

    It includes the motion that belongs there: only results that follow the same driving videos can be compared.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """A scorer for this clip."""
        return _JitterScorer(keypoints_of(clip), against_truth=False)


class _JitterScorer:
    """The second difference of the error is the difference of the second differences."""

    def __init__(self, source: KeypointSource, *, against_truth: bool) -> None:
        self._source, self._against_truth = source, against_truth
        self._frames = 0
        self._last: Points | None = None
        self._scores: list[Scores] = []

    def add(self, chunk: FrameChunk) -> None:
        points = self._points(chunk)
        self._frames += len(points)
        known = points if self._last is None else np.concatenate([self._last, points])
        self._scores.append(jitters(known))
        self._last = known[-2:]

    def finish(self) -> ClipScores:
        ends = [np.full(min(self._frames, 1), np.nan), np.full(min(max(self._frames - 1, 0), 1), np.nan)]
        return mean_of_frames(np.concatenate([ends[0], *self._scores, ends[1]]))

    def _points(self, chunk: FrameChunk) -> Points:
        if self._against_truth:
            prediction, truth = both(self._source, chunk)
            return prediction - truth
        return self._source(chunk)[0]


def jitters(points: Points) -> NDArray[np.float64]:
    """Of each frame but the first and the last, (max(0, N - 2),) in pixels, of keypoints (N, K, 2); NaN where none has
    both neighbours."""
    if len(points) < 3:
        return np.zeros(0)
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return mean_where(np.linalg.norm(second, axis=-1), found(second))
