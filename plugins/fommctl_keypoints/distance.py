"""AKD: the distance between the keypoints of prediction and truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, MetricClip
from fommctl_keypoints.scoring import FrameScorer, Points, both, found, keypoints_of, mean_where


class PaperDistance:
    """AKD as the published scripts compute it.

    Faces (pose-evaluation, cmp_kp.py): the score of a frame is the mean of |difference| over the 68x2 coordinates, in
    pixels: half the Manhattan distance, neither Euclidean nor divided by the size of the face. Frames in which the
    prediction has no face are skipped; one without a face in the truth stops the script and is skipped here.
    Bodies (cmp_with_missing.py): the same mean over the joints that both sides have; frames with none are skipped.
    Where a detector finds all landmarks of a face or none, these are one formula.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(lambda chunk: paper_distances(*both(source, chunk)))


class StrictDistance:
    """AKD as its name says: the Euclidean distance, over all keypoints of the truth.

    A keypoint that the prediction lacks costs the diagonal of the frame, the largest distance that there is, so that
    no model gains by making a subject unrecognisable. Frames without a keypoint in the truth are not scored; keypoints
    that only the prediction has are not counted.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(
            lambda chunk: strict_distances(*both(source, chunk), diagonal=math.hypot(*chunk.prediction.shape[1:3]))
        )


def paper_distances(prediction: Points, truth: Points) -> NDArray[np.float64]:
    """Return each frame's distance, (N,) in pixels, NaN where no keypoint is in both; keypoints are (N, K, 2), NaN
    where absent."""
    return mean_where(np.abs(prediction - truth).mean(-1), found(prediction) & found(truth))


def strict_distances(prediction: Points, truth: Points, *, diagonal: float) -> NDArray[np.float64]:
    """Return each frame's distance, (N,) in pixels, NaN where the truth has no keypoint; diagonal: of the frame."""
    lengths = np.linalg.norm(prediction - truth, axis=-1)
    return mean_where(np.where(found(prediction), lengths, diagonal), found(truth))
