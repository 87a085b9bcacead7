"""Keypoint jitter: how much keypoints shake from frame to frame.

With p_t a keypoint in frame t, its second difference is a_t = p_(t+1) - 2 p_t + p_(t-1): zero in steady motion. Values
depend on the frame rate; compare only clips of the same rate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, KeypointSource, MetricClip, mean_of_frames
from fommctl_keypoints.scoring import Points, Scores, both, found, keypoints_of, mean_where


class JitterAgainstTruth:
    """Mean of |a_t - b_t| over keypoints and frames, with a of the prediction and b of the truth.

    This is the acceleration error of human motion (Kanazawa et al. 2019), in pixels. Frame t needs both neighbours, so
    the first and the last frame are not scored, nor is a keypoint missing in one of the three frames on either side.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _JitterScorer(keypoints_of(clip), against_truth=True)


class PlainJitter:
    """Mean of |a_t| over keypoints and frames, in pixels, for results without a truth.

    It includes intended motion: compare only results driven by the same videos.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _JitterScorer(keypoints_of(clip), against_truth=False)


class RelativeJitter:
    """The mean of |a_t| of the prediction over that of the driving video, each relative to the size of its subject: 1
    shakes as much as the driving video, intended motion included.

    Both means are over the keypoints and frames whose neighbours are known on both sides. The size is the root mean
    square distance of these frames' keypoints from their centre, so that a source whose subject is larger than the
    driving one does not count as shaking. A clip whose driving keypoints do not move at all is not scored.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _RelativeScorer(keypoints_of(clip))


class _RelativeScorer:
    """Keeps prediction and driving video side by side in one array (N, 2, K, 2)."""

    def __init__(self, source: KeypointSource) -> None:
        self._source = source
        self._frames = self._scored = 0
        self._last: Points = np.empty((0, 2, 0, 2))
        self._lengths = np.zeros(2)
        self._squares = np.zeros(2)
        """Sums of squared sizes over all scored frames, for the prediction and for the driving video."""

    def add(self, chunk: FrameChunk) -> None:
        points = np.stack(both(self._source, chunk), axis=1)
        self._frames += len(points)
        known = np.concatenate([self._last, points]) if len(self._last) else points
        self._last = known[-2:]
        if len(known) < 3:
            return
        second = known[2:] - 2 * known[1:-1] + known[:-2]
        there = np.asarray(np.isfinite(second).all(axis=(1, 3)))
        counted = there.sum(-1) > 1
        self._scored += int(counted.sum())
        for middle, moved, kept in zip(known[1:-1][counted], second[counted], there[counted], strict=True):
            self._lengths += np.linalg.norm(moved[:, kept], axis=-1).mean(-1)
            self._squares += np.square(middle[:, kept] - middle[:, kept].mean(1, keepdims=True)).sum(-1).mean(-1)

    def finish(self) -> ClipScores:
        if not self._lengths[1] or not self._squares.all():
            return ClipScores(np.empty(0), None, 0, self._frames)
        shaking = self._lengths / np.sqrt(self._squares)
        return ClipScores(np.empty(0), float(shaking[0] / shaking[1]), self._scored, self._frames)


class _JitterScorer:
    """Scores the second difference of the error, which is the difference of the second differences."""

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
    """Return the jitter of all frames but the first and the last, (max(0, N - 2),) in pixels; NaN for frames in which
    no keypoint has both neighbours.

    points: (N, K, 2) in pixels, NaN for missing keypoints.
    """
    if len(points) < 3:
        return np.zeros(0)
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return mean_where(np.linalg.norm(second, axis=-1), found(second))
