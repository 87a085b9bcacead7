"""MKR, the share of the true keypoints that are missing in the prediction (Siarohin et al. 2019, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, FrameScorer, KeypointSource, MetricClip
from fommctl_keypoints.scoring import Points, Scores, both, found, joined, keypoints_of


class PaperMissing:
    """MKR as the published script computes it (pose-evaluation, cmp_with_missing.py).

    The score of a frame is the number of joints found only in the truth over the number found in the truth, averaged
    over the frames with a joint in the truth. It is published for bodies only. For faces, whose landmarks are found
    together, it is the share of the frames that lost the face.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        source = keypoints_of(clip)
        return FrameScorer(lambda chunk: _rates(*_counts(*both(source, chunk))))


class StrictMissing:
    """MKR over all keypoints of all frames together, so that frames with few keypoints do not count for more.

    Keypoints found only in the prediction are ignored.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _StrictScorer(keypoints_of(clip))


class _StrictScorer:
    def __init__(self, source: KeypointSource) -> None:
        self._source = source
        self._missing: list[Scores] = []
        self._present: list[Scores] = []

    def add(self, chunk: FrameChunk) -> None:
        missing, present = _counts(*both(self._source, chunk))
        self._missing.append(missing)
        self._present.append(present)

    def finish(self) -> ClipScores:
        missing, present = joined(self._missing), joined(self._present)
        frames = _rates(missing, present)
        value = float(missing.sum() / present.sum()) if present.any() else None
        state = {"missing": missing.sum(keepdims=True), "present": present.sum(keepdims=True)}
        return ClipScores(frames, value, int((present > 0).sum()), len(frames), state)


def pooled(clips: Sequence[ClipScores]) -> float | None:
    """Return `mkr.strict` over all keypoints of several clips; None if the truth has none."""
    missing, present = (sum(float(clip.state[name][0]) for clip in clips) for name in ("missing", "present"))
    return missing / present if present else None


def _counts(prediction: Points, truth: Points) -> tuple[Scores, Scores]:
    """Return, for each frame, the number of true keypoints missing in the prediction, (N,), and of all true ones,
    (N,)."""
    present = found(truth)
    return (present & ~found(prediction)).sum(-1).astype(np.float64), present.sum(-1).astype(np.float64)


def _rates(missing: Scores, present: Scores) -> NDArray[np.float64]:
    """Return the rate of each frame, (N,), NaN for frames without a keypoint in the truth."""
    return np.where(present > 0, missing / np.maximum(present, 1), np.nan)
