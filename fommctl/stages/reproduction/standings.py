"""Scores of several systems, each trained with several seeds, on the same clips: means, intervals and comparisons.

The score of a system is the mean over its seeds of the mean over clips. Intervals are of the percentile bootstrap:
clips are drawn with replacement, the same ones for all systems, and for each system its seeds are drawn with
replacement, since each training is one draw of initial weights. With three seeds the share of the seeds in an
interval is a rough one, and rather too small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fommctl.stages.evaluation.results import Evaluation, MetricInfo

RESAMPLES = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One system by one metric, or the difference of two."""

    mean: float
    ci95: tuple[float, float] | None
    """None for fewer than two clips, and where a metric has no score of single clips."""
    seeds: tuple[float, ...]
    """The mean of each seed."""
    clips: int
    frames: int
    """Scored ones, of all seeds together."""
    coverage: float
    """Scored frames over all frames, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ByClip:
    """What one metric says of one system."""

    values: Floats
    """(S, C) by seed and clip; NaN where there is none."""
    weights: Floats
    """(S, C); 0 where there is no value."""
    frames: int
    total: int

    def scored_clips(self) -> NDArray[np.bool_]:
        """(C,): those that any seed has a score of."""
        return np.asarray((self.weights > 0).any(0))

    def means(self, clips: NDArray[np.int64]) -> Floats:
        """Weighted means (S, R) over clips (R, n), numbers of clips; NaN where none of them was scored."""
        weights = self.weights[:, clips]
        with np.errstate(invalid="ignore"):
            found: Floats = (np.nan_to_num(self.values)[:, clips] * weights).sum(-1) / weights.sum(-1)
        return found


class Standings:
    """All scores of a reproduction."""

    def __init__(self, evaluations: Sequence[Evaluation], seed: int = 0) -> None:
        """evaluations: one for each seed of the trainings, of the same systems (those that were trained) and metrics.

        seed: of the bootstrap.
        """
        if len({evaluation.clips for evaluation in evaluations}) != 1:
            raise ValueError("the evaluations are of different clips")
        self._evaluations = tuple(evaluations)
        self._seed = seed
        self.clips = evaluations[0].clips
        self.metrics: Mapping[str, MetricInfo] = {
            name: info
            for name, info in evaluations[0].metrics.items()
            if all(name in each.metrics for each in evaluations)
        }
        models = dict.fromkeys(model for evaluation in evaluations for model in evaluation.models)
        self.systems = tuple(models)

    def score(self, system: str, metric: str) -> Score | None:
        """None where nothing was scored."""
        table = self._table(system, metric)
        if table is None:
            return self._whole(system, metric)
        return self._scored([table], lambda drawn: drawn[0])

    def difference(self, first: str, second: str, metric: str) -> Score | None:
        """The score of the first system less that of the second, over the clips that both have; None where one of
        them has no scores of single clips."""
        one, other = self._table(first, metric), self._table(second, metric)
        if one is None or other is None:
            return None
        both = np.logical_and(one.scored_clips(), other.scored_clips())
        kept = [_only(table, both) for table in (one, other)]
        return self._scored(kept, lambda drawn: drawn[0] - drawn[1]) if both.any() else None

    def verdict(self, first: str, second: str, metric: str) -> Literal["better", "worse", "undecided"]:
        """Of the first system against the second: undecided where the interval of their difference holds zero."""
        score = self.difference(first, second, metric)
        if score is None or score.ci95 is None or score.ci95[0] <= 0 <= score.ci95[1]:
            return "undecided"
        return "better" if (score.mean < 0) == self.metrics[metric].lower_is_better else "worse"

    def order(self, metric: str) -> tuple[str, ...]:
        """The systems that have a score, the best first."""
        means = {system: score.mean for system in self.systems if (score := self.score(system, metric)) is not None}
        sign = 1 if self.metrics[metric].lower_is_better else -1
        return tuple(sorted(means, key=lambda system: sign * means[system]))

    def _table(self, system: str, metric: str) -> ByClip | None:
        """None for a metric whose score is not a mean over clips, and where there is no score."""
        if self.metrics[metric].combine is not None:
            return None
        there = [each.clip_scores(system, metric) for each in self._evaluations if system in each.models]
        by_frames = self.metrics[metric].weighting == "frames"
        scored = [[None if one is None or not one.scored else one for one in scores] for scores in there]
        values = np.array(
            [[np.nan if one is None or one.value is None else one.value for one in row] for row in scored]
        )
        counts = np.array([[0.0 if one is None else float(one.scored) for one in row] for row in scored])
        weights = np.where(np.isfinite(values), counts if by_frames else counts > 0, 0.0)
        if not (weights > 0).any():
            return None
        total = sum(one.total for scores in there for one in scores if one is not None)
        return ByClip(values, weights, int(counts.sum()), total)

    def _whole(self, system: str, metric: str) -> Score | None:
        """By the means of the evaluations alone."""
        found = [each.summary(system, metric) for each in self._evaluations if system in each.models]
        means = [one.mean for one in found if one.mean is not None]
        if not means:
            return None
        frames, clips = sum(one.frames for one in found), max(one.clips for one in found)
        coverage = float(np.mean([one.coverage for one in found]))
        return Score(float(np.mean(means)), None, tuple(means), clips, frames, coverage)

    def _scored(self, tables: Sequence[ByClip], combine: Callable[[Sequence[Floats]], Floats]) -> Score:
        """combine: of the systems' scores, arrays of one shape, to what is asked for."""
        clips = np.flatnonzero(np.logical_or.reduce([table.scored_clips() for table in tables]))
        seeds = combine([table.means(clips[None])[:, 0] for table in _as_many_seeds(tables)])
        mean = float(combine([np.nanmean(table.means(clips[None]), 0) for table in tables])[0])
        interval = self._interval(tables, combine, clips) if len(clips) > 1 else None
        poorest = min(tables, key=lambda table: table.frames)
        coverage = poorest.frames / poorest.total if poorest.total else 0.0
        return Score(mean, interval, tuple(float(one) for one in seeds), len(clips), poorest.frames, coverage)

    def _interval(
        self, tables: Sequence[ByClip], combine: Callable[[Sequence[Floats]], Floats], clips: NDArray[np.int64]
    ) -> tuple[float, float] | None:
        random = np.random.default_rng(self._seed)
        draws = clips[random.integers(0, len(clips), (RESAMPLES, len(clips)))]
        means = []
        for table in tables:
            by_seed = table.means(draws)
            chosen = random.integers(0, len(by_seed), (len(by_seed), RESAMPLES))
            means.append(np.take_along_axis(by_seed, chosen, 0).mean(0))
        drawn = combine(means)
        drawn = drawn[np.isfinite(drawn)]
        if not drawn.size:
            return None
        low, high = np.percentile(drawn, (2.5, 97.5))
        return float(low), float(high)


def _only(table: ByClip, clips: NDArray[np.bool_]) -> ByClip:
    return ByClip(table.values, table.weights * clips, table.frames, table.total)


def _as_many_seeds(tables: Sequence[ByClip]) -> list[ByClip]:
    """The first seeds, as many as all systems have."""
    count = min(len(table.values) for table in tables)
    return [ByClip(each.values[:count], each.weights[:count], each.frames, each.total) for each in tables]
