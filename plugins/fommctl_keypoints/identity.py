"""AED: the distance between the embeddings of predicted and true subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api import UsageError
from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, MetricClip
from fommctl_keypoints.scoring import FrameScorer, Scores, embeddings_of

Embeddings = NDArray[np.float64]
SHARE = 95
"""Percent."""
DISTANCES = "distances"


class PaperIdentity:
    """AED as the published script computes it (pose-evaluation, cmp.py): the sum of squared differences, without the
    square root; the mean over frames.

    The published networks are handed the whole frame and always answer: OpenFace for faces, without alignment, and a
    ResNet of Market-1501 for bodies. An embedder that aligns the subject first answers nothing where it sees none:
    frames in which one side has no embedding are skipped.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, paper_distances)


class StrictIdentity:
    """AED as its name says: the Euclidean distance, over all frames whose truth has an embedding.

    Where the prediction has none, it costs twice the length of the true embedding: the distance of the opposite one,
    which for embeddings of length one is the largest that there is.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, strict_distances)


class PlainIdentity:
    """The Euclidean distance, over all frames that have an embedding on both sides.

    A head that turns away with the driving video is nobody to an embedder of frontal faces, whoever it is: across
    identities this is the fairer mean. What a model loses that the driving video shows, `mkr` counts.
    """

    def clip(self, clip: MetricClip) -> ClipScorer:
        """Return a scorer for this clip."""
        return _scorer(clip, plain_distances)


class FarIdentity:
    """The distance that 95 % of the frames of PlainIdentity stay under: the few frames in which somebody else appears,
    which a mean hides. Several clips are taken together, frame by frame."""

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
    """Return `aed.p95` of several clips; None where no frame could be scored."""
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
    """Return each frame's distance, (N,), NaN where either has no embedding; embeddings are (N, D), NaN where there is
    none."""
    difference: Embeddings = prediction - truth
    return np.asarray((difference * difference).sum(-1))


def plain_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Return each frame's distance, (N,), NaN where either has no embedding."""
    distances: Scores = np.linalg.norm(prediction - truth, axis=-1)
    return distances


def strict_distances(prediction: Embeddings, truth: Embeddings) -> Scores:
    """Return each frame's distance, (N,), NaN where the truth has no embedding."""
    absent = ~np.isfinite(prediction).all(-1)
    opposite = 2 * np.linalg.norm(truth, axis=-1)
    distances: Scores = np.where(absent, opposite, np.linalg.norm(prediction - truth, axis=-1))
    return distances
