"""AKD, the average distance between the keypoints of prediction and truth (Siarohin et al. 2019, section 4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, FrameScorer, MetricClip
from fommctl_keypoints.scoring import Points, both, found, keypoints_of, mean_where


class PaperDistance:
    """AKD as the published scripts compute it.

    Faces (pose-evaluation, cmp_kp.py): the score of a frame is the mean absolute difference over the 68x2 coordinates,
    in pixels: half the Manhattan distance, neither Euclidean nor relative to the size of the face. Frames in which the
    prediction has no face are skipped; so are those without a face in the truth, which stop the published script.
    Bodies (cmp_with_missing.py): the same mean over the joints found on both sides; frames with none are skipped.
    The two are the same formula for detectors that find either all landmarks of a face or none.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(lambda chunk: paper_distances(*both(source, chunk)))


class StrictDistance:
    """AKD as a Euclidean distance in pixels, over all keypoints of the truth.

    A keypoint missing in the prediction costs the frame's diagonal, the largest possible distance, so that no model
    gains by making the subject unrecognisable. Frames without a keypoint in the truth are not scored; keypoints found
    only in the prediction are ignored.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(
            lambda chunk: strict_distances(*both(source, chunk), diagonal=math.hypot(*chunk.prediction.shape[1:3]))
        )


def paper_distances(prediction: Points, truth: Points) -> NDArray[np.float64]:
    """Return the mean distance of each frame, (N,) in pixels, NaN for frames without a common keypoint.

    prediction, truth: (N, K, 2) in pixels, NaN for missing keypoints.
    """
    return mean_where(np.abs(prediction - truth).mean(-1), found(prediction) & found(truth))


def strict_distances(prediction: Points, truth: Points, *, diagonal: float) -> NDArray[np.float64]:
    """Return the mean distance of each frame, (N,) in pixels, NaN for frames without a keypoint in the truth.

    prediction, truth: (N, K, 2) in pixels, NaN for missing keypoints.  diagonal: of the frame, in pixels.
    """
    lengths = np.linalg.norm(prediction - truth, axis=-1)
    return mean_where(np.where(found(prediction), lengths, diagonal), found(truth))
