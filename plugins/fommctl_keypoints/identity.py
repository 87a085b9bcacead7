"""AED: how far the embedding of the predicted subject is from that of the true one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fommctl.api import UsageError
from fommctl.api.metrics import ClipScorer, FrameChunk, MetricClip
from fommctl_keypoints.scoring import FrameScorer, Scores, embeddings_of

Embeddings = NDArray[np.float64]


class PaperIdentity:
    """AED as the published script computes it (pose-evaluation, cmp.py): the sum of squared differences, without the
    square root; the mean over frames.

    The published networks are handed the whole frame and always answer: OpenFace for faces, without alignment, and a
    ResNet of Market-1501 for bodies. An embedder that aligns the subject first answers nothing where it sees none:
    frames in which one side has no embedding are skipped.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """A scorer for this clip."""
        return _scorer(clip, paper_distances)


class StrictIdentity:
    """AED as its name says: the Euclidean distance, over all frames whose truth has an embedding.

    Where the prediction has none, it costs twice the length of the true embedding: the distance of the opposite one,
    which for embeddings of length one is the largest that there is.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """A scorer for this clip."""
        return _scorer(clip, strict_distances)


def _scorer(clip: MetricClip, distances: Callable[[Embeddings, Embeddings], Scores]) -> ClipScorer:
    source = embeddings_of(clip)

    def score(chunk: FrameChunk) -> Scores:
        if chunk.truth is None:
            raise UsageError(f"{clip.name} has no pictures of the true subject", "Hand in the true frames.")
        return distances(source(chunk.prediction), source(chunk.truth))

    return FrameScorer(score)


def paper_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Of each frame, (N,), NaN where either has no embedding; embeddings are (N, D), NaN where there is none."""
    difference: Embeddings = prediction - truth
    return np.asarray((difference * difference).sum(-1))


def strict_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Of each frame, (N,), NaN where the truth has no embedding."""
    absent = ~np.isfinite(prediction).all(-1)
    opposite = 2 * np.linalg.norm(truth, axis=-1)
    distances: Scores = np.where(absent, opposite, np.linalg.norm(prediction - truth, axis=-1))
    return distances
