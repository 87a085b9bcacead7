"""Sharpness: how much fine detail the subject has, by the variance of the Laplacian (Pech-Pacheco et al. 2000)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, FrameChunk, KeypointSource, MetricClip
from fommctl_keypoints.scoring import FrameScorer, Points, Scores, both, found, keypoints_of

BRIGHTNESS = np.array((0.299, 0.587, 0.114))


class Sharpness:
    """Variance of the Laplacian of brightness in the box of the keypoints, over that of the true subject in its own
    box; the mean over frames.

    1 is as sharp as the truth, or as the source picture where there is no truth. Twice the detail counts as half of it:
    noise and ringing are not sharpness. Frames in which one side has no keypoints, or the truth has no detail, are not
    scored.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(lambda chunk: _ratios(chunk, source))


def _ratios(chunk: FrameChunk, source: KeypointSource) -> Scores:
    """Return (N,), NaN where a frame has none."""
    prediction, truth = both(source, chunk)
    assert chunk.truth is not None
    rows = zip(chunk.prediction, prediction, chunk.truth, truth, strict=True)
    pairs = [(detail(frame, points), detail(true, true_points)) for frame, points, true, true_points in rows]
    mine, theirs = np.array(pairs, np.float64).reshape(-1, 2).T
    # What is not a number on either side stays so.
    most = np.where(theirs > 0, np.maximum(mine, theirs), np.nan)
    return np.minimum(mine, theirs) / most


def detail(frame: NDArray[np.uint8], points: Points) -> float:
    """Return variance of the Laplacian of a frame (H, W, 3) in the box of keypoints (K, 2), in squared levels; NaN
    where there are none, or too little of the frame."""
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
