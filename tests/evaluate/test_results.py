"""Means, intervals and differences of an evaluation, for known cases."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from evaluations import L1, PSNR, constant, evaluation, noisy
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.api.metrics import ClipScores, mean_of_frames


def clip(value, frames, scored=None):
    """Return a clip with this mean and `scored` scored frames."""
    count = frames if scored is None else scored
    return mean_of_frames([value] * count + [math.nan] * (frames - count))


def test_frames_or_clips_weigh():
    scores = (clip(1.0, 10), clip(4.0, 30), None)
    metrics = {"by-frames": L1, "by-clips": PSNR}
    found = evaluation({("m", "by-frames"): scores, ("m", "by-clips"): scores}, metrics=metrics)
    assert found.summary("m", "by-frames").mean == pytest.approx((10 * 1 + 30 * 4) / 40)
    assert found.summary("m", "by-clips").mean == pytest.approx(2.5)
    assert (found.summary("m", "by-clips").clips, found.summary("m", "by-clips").frames) == (2, 40)


def test_coverage_counts_frames_without_a_score():
    found = evaluation({("m", "l1.paper"): (clip(1.0, 10, 4), clip(2.0, 10, 0))}).summary("m", "l1.paper")
    assert (found.mean, found.frames, found.coverage, found.clips) == (1.0, 4, 0.2, 1)
    assert found.ci95 is None  # a single clip says nothing about the spread


def test_nothing_scored():
    found = evaluation({("m", "l1.paper"): (clip(1.0, 3, 0), None)})
    assert found.summary("m", "l1.paper").mean is None
    assert found.ranking("l1.paper") == []
    json.dumps(found.to_json(), allow_nan=False)


def test_the_interval_is_that_of_the_mean_of_clips():
    """For many clips of equal length, the bootstrap converges to the normal interval: mean +- 1.96 s / sqrt(n)."""
    values = np.random.default_rng(1).normal(5, 1, 400)
    low, high = evaluation({("m", "l1.paper"): tuple(clip(value, 5) for value in values)}).summary("m", "l1.paper").ci95
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_differences_are_paired():
    """Clips differ much more than models, but the difference is certain, because it is the same for every clip."""
    levels = np.random.default_rng(2).uniform(1, 100, 20)
    one = tuple(clip(level, 8) for level in levels)
    other = (*(clip(level + 1, 8) for level in levels[:-1]), None)
    found = evaluation({("a", "l1.paper"): one, ("b", "l1.paper"): other})
    difference = found.difference("a", "b", "l1.paper")
    assert difference.mean == pytest.approx(-1)
    assert difference.ci95 == pytest.approx((-1, -1))
    assert difference.clips == 19
    low, high = found.summary("a", "l1.paper").ci95
    assert high - low > 10
    assert found.best("l1.paper") == "a"


def test_a_model_that_fails_on_a_hard_clip_is_none_the_better_for_it():
    one, other = constant(1.0, 2.0, 30.0), constant(1.5, 2.5, None)
    found = evaluation({("a", "l1.paper"): one, ("b", "l1.paper"): other, ("c", "l1.paper"): constant(*[None] * 3)})
    assert found.summary("a", "l1.paper").mean == pytest.approx(1.5)
    assert found.summary("a", "l1.paper").clips == found.summary("b", "l1.paper").clips == 2
    assert found.ranking("l1.paper") == ["a", "b"]
    assert found.clip_scores("a", "l1.paper") == one  # shown clip by clip nevertheless


@given(seed=st.integers(0, 2**32), clips=st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_intervals_hold_the_mean_and_are_the_same_every_time(seed, clips):
    scores = {("a", "l1.paper"): noisy(1, clips, 9, seed), ("b", "l1.paper"): noisy(2, clips, 9, seed + 1)}
    one, again = evaluation(scores), evaluation(scores)
    assert one.to_json() == again.to_json()
    found = one.summary("a", "l1.paper")
    assert found.ci95[0] - 1e-9 <= found.mean <= found.ci95[1] + 1e-9
    there, back = one.difference("a", "b", "l1.paper"), one.difference("b", "a", "l1.paper")
    assert there.mean == pytest.approx(-back.mean)
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))


def test_combined_scores():
    """A score of all clips together, as of a distribution: here the largest of all states."""

    def largest(scores):
        return max(float(one.state["x"].max()) for one in scores)

    def state(*values):
        return ClipScores(np.empty(0), None, len(values), len(values), {"x": np.array(values)})

    info = replace(L1, combine=largest)
    found = evaluation({("m", "top"): (state(1.0, 5.0), state(3.0))}, metrics={"top": info}).summary("m", "top")
    assert (found.mean, found.ci95, found.frames) == (5.0, (3.0, 5.0), 3)
    large = tuple(ClipScores(np.empty(0), None, 1, 1, {"x": np.full(5000, value)}) for value in (1.0, 2.0))
    dear = evaluation({("m", "top"): large}, metrics={"top": info}).summary("m", "top")
    assert (dear.mean, dear.ci95) == (2.0, None)


def test_json_holds_no_nan():
    found = evaluation({("a", "l1.paper"): constant(1.0, math.nan), ("b", "l1.paper"): constant(None, 2.0)})
    json.dumps(found.to_json(), allow_nan=False)
