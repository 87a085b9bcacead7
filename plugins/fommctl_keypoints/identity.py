"""AED, the average distance between the embeddings of predicted and true subject (Siarohin et al. 2019, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api import UsageError
from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, FrameScorer, MetricClip
from fommctl_keypoints.scoring import Scores, embeddings_of

Embeddings = NDArray[np.float64]
SHARE = 95
"""Percentile of `aed.p95`."""
DISTANCES = "distances"


class PaperIdentity:
    """AED as the published script computes it (pose-evaluation, cmp.py): the sum of squared differences, without the
    square root, averaged over frames.

    The published networks, OpenFace without alignment for faces and a ResNet trained on Market-1501 for bodies, embed
    the whole frame and always return a result. Embedders that locate the subject first return nothing if there is
    none; frames without an embedding on either side are skipped.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, paper_distances)


class StrictIdentity:
    """AED as a Euclidean distance, over all frames whose truth has an embedding.

    A frame whose prediction has none costs twice the length of the true embedding: the distance of the opposite vector,
    which is the largest possible one between embeddings of length 1.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, strict_distances)


class PlainIdentity:
    """AED as a Euclidean distance, over all frames with an embedding on both sides.

    The fairer mean across identities: embedders of frontal faces recognise nobody in a head that turns away with the
    driving video. `mkr` counts faces that the driving video shows and the model loses.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, plain_distances)


class FarIdentity:
    """The 95th percentile of the distances of PlainIdentity: reveals the few frames that show somebody else, which a
    mean hides. Over several clips, it is the percentile of all their frames."""

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _FarScorer(_scorer(clip, plain_distances))


class _FarScorer:
    def __init__(self, distances: ClipScorer) -> None:
        self._distances = distances

    def add(self, chunk: FrameChunk) -> None:
        self._distances.add(chunk)

    def finish(self) -> ClipScores:
        found = self._distances.finish()
        known = found.frames[np.isfinite(found.frames)]
        return replace(found, value=_far(known), state={DISTANCES: known})


def together(clips: Sequence[ClipScores]) -> float | None:
    """Return `aed.p95` of several clips; None if no frame could be scored."""
    return _far(np.concatenate([np.empty(0), *(clip.state[DISTANCES].astype(np.float64) for clip in clips)]))


def _far(distances: Scores) -> float | None:
    return float(np.percentile(distances, SHARE)) if len(distances) else None


def _scorer(clip: MetricClip, distances: Callable[[Embeddings, Embeddings], Scores]) -> ClipScorer:
    source = embeddings_of(clip)

    def score(chunk: FrameChunk) -> Scores:
        if chunk.truth is None:
            raise UsageError(f"{clip.name} has no pictures of the true subject", "Pass in the true frames.")
        return distances(source(chunk.prediction), source(chunk.truth))

    return FrameScorer(score)


def paper_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Return the squared distance of each frame, (N,), NaN for frames without an embedding on either side.

    prediction, truth: (N, D), NaN for missing embeddings.
    """
    difference: Embeddings = prediction - truth
    return np.asarray((difference * difference).sum(-1))


def plain_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Return the Euclidean distance of each frame, (N,), NaN for frames without an embedding on either side.

    prediction, truth: (N, D), NaN for missing embeddings.
    """
    distances: Scores = np.linalg.norm(prediction - truth, axis=-1)
    return distances


def strict_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Return the Euclidean distance of each frame, (N,), NaN for frames without an embedding of the truth.

    prediction, truth: (N, D), NaN for missing embeddings; missing predictions cost twice the length of the truth.
    """
    absent = ~np.isfinite(prediction).all(-1)
    opposite = 2 * np.linalg.norm(truth, axis=-1)
    distances: Scores = np.where(absent, opposite, np.linalg.norm(prediction - truth, axis=-1))
    return distances
