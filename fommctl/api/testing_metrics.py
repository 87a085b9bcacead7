"""The contract of metrics, as `fommctl.api.testing` has those of the other plugins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScores, FrameChunk, Metric, MetricClip
from fommctl.api.promises import promise as _promise
from fommctl.api.specs import MetricSpec
from fommctl.api.testing import pictures
from fommctl.api.validation import spec_fault
from fommctl.errors import MissingError

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


def check_metric(spec: MetricSpec, frames: Sequence[Pixels] = ()) -> None:
    """frames: a true clip of three frames (H, W, 3) or more that the metric can score; by default a smooth picture of
    64 pixels that moves. Keypoints and embeddings, where the metric uses them, are read off the colours.

    Scores are finite or none, the same however the frames are cut into chunks, lie in memory or alternate with those of
    another clip; the truth scores no worse than the truth under noise; small, black and few frames are no errors. A
    metric that raises MissingError when it is built is not checked. Raises AssertionError with the promise that was
    broken.
    """
    fault = spec_fault("metric", spec)
    _promise(fault is None, fault or "")
    _promise(spec.summary, "the summary says what it is")
    _promise(
        spec.needs in ("truth", "identity", "driving", "nothing"),
        "it needs the truth, the identity, the driving video or nothing",
        spec.needs,
    )
    _promise(set(spec.uses) <= {"keypoints", "embeddings"}, "it uses keypoints and embeddings at most", spec.uses)
    _promise(
        spec.weighting in ("frames", "clips"), "the mean over clips is weighted by frames or by clips", spec.weighting
    )
    try:
        metric = spec.build()
    except MissingError:
        return
    truth = np.stack(list(frames) or moving_pictures(7))
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    noisy = (truth + noise).round().clip(0, 255).astype(np.uint8)
    _check_order(spec, metric, truth, noisy)
    _check_streaming(spec, metric, truth, noisy)
    _check_odd_clips(spec, metric, truth, noisy)


def moving_pictures(count: int, size: int = 64) -> list[Pixels]:
    """Squares of a smooth picture, each a pixel below and two to the right of the one before."""
    (whole,) = pictures(1, size + count, size + 2 * count)
    return [whole[step : step + size, 2 * step : 2 * step + size] for step in range(count)]


def _check_order(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    if spec.needs == "nothing":
        return
    same, worse = (_total(spec, [_score(spec, metric, frames, truth)]) for frames in (truth.copy(), noisy))
    if same is not None and worse is not None:
        ordered = same <= worse if spec.lower_is_better else same >= worse
        _promise(ordered, "the truth scores no worse than the truth under noise", f"{same:g} and {worse:g}")


def _check_streaming(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    before = noisy.copy(), truth.copy()
    whole = _score(spec, metric, noisy, truth)
    _promise(_alike(spec, whole, _score(spec, metric, noisy, truth)), "the same frames get the same score")
    one, other = (metric.clip(_clip(spec)) for _ in range(2))
    middle = [0, 1, 3, len(truth)]
    for first, end in pairwise(middle):
        one.add(_chunk(spec, noisy, truth, first, end, exact=True))
        other.add(_chunk(spec, truth, truth, first, end))
    other.finish()
    _promise(_alike(spec, whole, one.finish()), "chunks and clips alongside make no difference")
    mirrored = [np.ascontiguousarray(frames[:, :, ::-1])[:, :, ::-1] for frames in (noisy, truth)]
    _promise(_alike(spec, whole, _score(spec, metric, *mirrored)), "it makes no difference how frames lie in memory")
    unchanged = (noisy == before[0]).all() and (truth == before[1]).all()
    _promise(unchanged, "the frames stay as they are")


def _check_odd_clips(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    black = np.zeros_like(truth)
    for prediction, reference in (
        (black, black),
        (black, truth),
        (truth, black),
        (noisy[:1], truth[:1]),
        (noisy[:2], truth[:2]),
        (noisy[:, :5, :9], truth[:, :5, :9]),
        (noisy[:, :1, :1], truth[:, :1, :1]),
    ):
        _score(spec, metric, prediction, reference)
    if spec.needs in ("identity", "driving"):
        # A source picture and a driving video have sizes of their own.
        _score(spec, metric, noisy, truth[:, ::2, ::3])
    empty = metric.clip(_clip(spec)).finish()
    _check_scores(empty, 0)
    _promise(empty.value is None, "a clip without frames has no score", empty.value)
    _promise(_total(spec, [empty]) is None, "no clip with a score, no score of all")


def _score(spec: MetricSpec, metric: Metric, prediction: Pixels, truth: Pixels) -> ClipScores:
    scorer = metric.clip(_clip(spec))
    scorer.add(_chunk(spec, prediction, truth, 0, len(prediction)))
    scores = scorer.finish()
    _check_scores(scores, len(prediction))
    return scores


def _chunk(
    spec: MetricSpec, prediction: Pixels, truth: Pixels, first: int, end: int, *, exact: bool = False
) -> FrameChunk:
    frames = prediction[first:end]
    known = None if spec.needs == "nothing" else truth[first:end]
    return FrameChunk(frames, known, (frames / 255).astype(np.float32) if exact else None, first)


def _check_scores(scores: ClipScores, total: int) -> None:
    _promise(isinstance(scores, ClipScores), "finish() gives ClipScores", scores)
    _promise(
        scores.value is None or math.isfinite(scores.value),
        "the value is finite, or None where there is none",
        scores.value,
    )
    _promise(
        scores.frames.dtype == np.float64 and scores.frames.ndim == 1,
        "scores of frames are (N,) float64",
        scores.frames,
    )
    _promise(
        len(scores.frames) in (0, total), "there is one score a frame, or none", f"{len(scores.frames)} for {total}"
    )
    _promise(not np.isinf(scores.frames).any(), "scores of frames are finite, or NaN where there is none")
    _promise(
        0 <= scores.scored <= total == scores.total,
        "the frames are counted",
        f"{scores.scored} of {scores.total} scored, of {total} given",
    )
    _promise(scores.value is None or scores.scored, "a value rests on frames")
    _promise(all(isinstance(array, np.ndarray) for array in scores.state.values()), "the state is of arrays")


def _alike(spec: MetricSpec, one: ClipScores, other: ClipScores) -> bool:
    counted = (one.scored, one.total) == (other.scored, other.total)
    frames = one.frames.shape == other.frames.shape and np.allclose(
        one.frames, other.frames, rtol=1e-4, atol=1e-6, equal_nan=True
    )
    values = [(one.value, other.value), (_total(spec, [one]), _total(spec, [other]))]
    return counted and frames and all(_near(*pair) for pair in values)


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)


def _total(spec: MetricSpec, clips: Sequence[ClipScores]) -> float | None:
    """The score of several clips."""
    if spec.combine is None:
        return clips[0].value
    value = spec.combine(clips)
    _promise(value is None or math.isfinite(value), "a combined score is finite, or None where there is none", value)
    return value


def _clip(spec: MetricSpec) -> MetricClip:
    return MetricClip(
        "clip",
        25.0,
        keypoints=_Centres() if "keypoints" in spec.uses else None,
        embeddings=_Colours() if "embeddings" in spec.uses else None,
    )


class _Centres:
    """The centre of the brightness of each colour as three keypoints; none in black frames."""

    name = "centres"

    def __call__(self, chunk: FrameChunk) -> tuple[Points, Points | None]:
        return _centres(chunk.prediction), None if chunk.truth is None else _centres(chunk.truth)


def _centres(frames: Pixels) -> Points:
    height, width = frames.shape[1:3]
    bright = frames.astype(np.float64)
    totals = bright.sum((1, 2))
    x, y = np.einsum("nhwk,w->nk", bright, np.arange(width)), np.einsum("nhwk,h->nk", bright, np.arange(height))
    with np.errstate(invalid="ignore"):
        points: Points = np.stack([x, y], -1) / totals[..., None]
    return points


class _Colours:
    """The mean colour of a frame; none in black frames."""

    name = "colours"

    def __call__(self, frames: Pixels) -> Points:
        means: Points = frames.mean((1, 2), dtype=np.float64) / 255
        return np.where(means.any(1, keepdims=True), means, np.nan)
