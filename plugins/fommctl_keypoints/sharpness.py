"""Sharpness: how much fine detail the subject has, by the variance of the Laplacian (Pech-Pacheco et al. 2000)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, FrameChunk, FrameScorer, KeypointSource, MetricClip
from fommctl_keypoints.scoring import Points, Scores, both, found, keypoints_of

BRIGHTNESS = np.array((0.299, 0.587, 0.114))
"""BT.601's weights of red, green and blue."""


class Sharpness:
    """Variance of the Laplacian of brightness within the keypoints' box, relative to that of the true subject in its
    own box; the mean over frames, in [0, 1].

    1 is as sharp as the truth or, without a truth, as the source picture. Twice the detail counts as half of it, since
    noise and ringing are not sharpness. Frames without keypoints on either side, or without detail in the truth, are
    not scored.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(lambda chunk: _ratios(chunk, source))


def _ratios(chunk: FrameChunk, source: KeypointSource) -> Scores:
    """Return the ratio of each frame, (N,), NaN for frames that cannot be scored."""
    prediction, truth = both(source, chunk)
    assert chunk.truth is not None
    rows = zip(chunk.prediction, prediction, chunk.truth, truth, strict=True)
    pairs = [(detail(frame, points), detail(true, true_points)) for frame, points, true, true_points in rows]
    mine, theirs = np.array(pairs, np.float64).reshape(-1, 2).T
    # NaN on either side stays NaN.
    most = np.where(theirs > 0, np.maximum(mine, theirs), np.nan)
    return np.minimum(mine, theirs) / most


def detail(frame: NDArray[np.uint8], points: Points) -> float:
    """Return the variance of the Laplacian of a frame (H, W, 3) within the box of keypoints (K, 2), in squared levels
    of 255; NaN without keypoints, or if the box has less than 3 pixels of the frame to a side."""
    there = points[found(points)]
    if not len(there):
        return math.nan
    (left, top), (right, bottom) = np.floor(there.min(0)), np.ceil(there.max(0)) + 1
    height, width = frame.shape[:2]
    box = frame[max(0, int(top)) : min(height, int(bottom)), max(0, int(left)) : min(width, int(right))]
    if min(box.shape[:2]) < 3:
        return math.nan
    grey = box @ BRIGHTNESS
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())
