"""The contract suite of metrics finds the violations that it is meant to find."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fommctl.api import MetricSpec, MissingError
from fommctl.api.metrics import ClipScores, FrameChunk, MetricClip, mean_of_frames
from fommctl.api.testing import check_metric, moving_pictures

Score = Callable[[FrameChunk, MetricClip], Any]


class Stream:
    """A scorer whose value is the mean over frames of `score` of each chunk."""

    def __init__(self, score: Score) -> None:
        self.score = score

    def clip(self, clip: MetricClip) -> "StreamOfClip":
        return StreamOfClip(self.score, clip)


class StreamOfClip:
    def __init__(self, score: Score, clip: MetricClip) -> None:
        self.score, self.of, self.values = score, clip, []

    def add(self, chunk: FrameChunk) -> None:
        self.values.extend(self.score(chunk, self.of))

    def finish(self) -> ClipScores:
        return mean_of_frames(self.values)


def spec(score: Score, **more: Any) -> MetricSpec:
    fields = {"name": "m", "summary": "s", "unit": "u", "lower_is_better": True, "build": lambda: Stream(score)}
    return MetricSpec(**(fields | more))


def difference(chunk: FrameChunk, clip: MetricClip | None = None) -> Any:
    return np.abs(chunk.prediction.astype(float) - chunk.truth).mean((1, 2, 3))


def unsteady(chunk: FrameChunk, clip: MetricClip) -> Any:
    return difference(chunk) * np.random.default_rng().random()


def darkening(chunk: FrameChunk, clip: MetricClip) -> Any:
    values = difference(chunk)
    chunk.prediction[:] //= 2
    return values


def forgetful(chunk: FrameChunk, clip: MetricClip) -> Any:
    return difference(chunk) * (chunk.first == 0)


def by_keypoints(chunk: FrameChunk, clip: MetricClip) -> Any:
    prediction, truth = clip.keypoints(chunk)
    return np.abs(prediction - truth).mean((1, 2))


def by_embeddings(chunk: FrameChunk, clip: MetricClip) -> Any:
    return ((clip.embeddings(chunk.prediction) - clip.embeddings(chunk.truth)) ** 2).sum(1)


def alone(chunk: FrameChunk, clip: MetricClip) -> Any:
    assert chunk.truth is None
    return chunk.prediction.mean((1, 2, 3))


class Counting:
    """A scorer that reports wrong counts."""

    def __init__(self, change: dict[str, Any]) -> None:
        self.change = change

    def clip(self, clip: MetricClip) -> Any:
        change = self.change

        class Scorer(StreamOfClip):
            def finish(self) -> ClipScores:
                return replace(super().finish(), **change)

        return Scorer(difference, clip)


def absent() -> Any:
    raise MissingError("the weights are absent", "Get them.")


@pytest.mark.parametrize(
    "kept",
    [
        spec(difference),
        spec(lambda chunk, clip: -difference(chunk), lower_is_better=False),
        spec(lambda chunk, clip: np.full(len(chunk), np.nan)),
        spec(by_keypoints, uses=("keypoints",)),
        spec(by_embeddings, uses=("embeddings",), needs="identity"),
        spec(by_keypoints, uses=("keypoints",), needs="driving"),
        spec(alone, needs="nothing", lower_is_better=False),
        spec(difference, combine=lambda clips: max((clip.value for clip in clips if clip.scored), default=None)),
        spec(difference, build=absent),
    ],
)
def test_kept_promises(kept: MetricSpec) -> None:
    check_metric(kept)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (spec(difference, lower_is_better=False), "the truth scores no worse"),
        (spec(difference, combine=lambda clips: -(clips[0].value or 0.0)), "the truth scores no worse"),
        (spec(unsteady), "the same frames have the same score"),
        (spec(darkening), "no difference|the same score|stay as they are"),
        (spec(forgetful), "do not depend on chunk sizes"),
        (spec(lambda chunk, clip: difference(chunk)[:1]), "scored and total count the frames|one score per frame"),
        (spec(difference, combine=lambda clips: float("nan")), "combined score is finite"),
        (spec(difference, needs="luck"), "needs is truth"),
        (spec(difference, uses=("eyes",)), "only keypoints and embeddings"),
        (spec(difference, weighting="mood"), "weighting is frames or clips"),
        (spec(difference, summary=""), "has a summary"),
        (spec(difference, build=lambda: Counting({"value": float("inf")})), "the value is finite"),
        (spec(difference, build=lambda: Counting({"total": 1})), "scored and total count the frames"),
        (spec(difference, build=lambda: Counting({"scored": 0})), "a value needs scored frames"),
        (spec(difference, build=lambda: Counting({"frames": np.zeros(2)})), "one score per frame"),
        (spec(difference, build=lambda: Counting({"state": {"sum": 1.0}})), "the state consists of arrays"),
    ],
)
def test_broken_promises(broken: MetricSpec, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_metric(broken)


@pytest.mark.parametrize("needs", ["identity", "driving"])
def test_a_source_and_a_driving_video_have_sizes_of_their_own(needs: str) -> None:
    with pytest.raises(ValueError, match="shapes"):
        check_metric(spec(difference, needs=needs))


def test_frames_can_be_handed_in() -> None:
    sizes = set()

    def watching(chunk: FrameChunk, clip: MetricClip) -> Any:
        sizes.add(chunk.prediction.shape[1:3])
        return difference(chunk)

    check_metric(spec(watching), moving_pictures(3, size=32))
    assert (32, 32) in sizes
    assert (64, 64) not in sizes
