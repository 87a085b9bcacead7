"""Scores of several systems, each trained with several seeds, on the same clips: means, intervals and comparisons.

The score of a system is the mean over its seeds of its score on all clips. Intervals are of the percentile bootstrap:
clips are drawn with replacement, the same ones for all systems, and for each system its seeds are drawn with
replacement, since each training is one draw of initial weights. Of three seeds the bootstrap knows little: the
intervals are rather too narrow than too wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScores
from fommctl.evaluate.results import LARGEST_STATE, Combine, Evaluation

RESAMPLES = 2000
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Row = Sequence[ClipScores | None]
"""Of one training: a clip's scores each, None where it was not scored."""


@dataclass(frozen=True, slots=True)
class Score:
    """One system by one metric, or the difference of two."""

    mean: float
    ci95: tuple[float, float] | None
    """None for fewer than two clips, and where it is too dear to compute (see LARGEST_STATE)."""
    seeds: tuple[float, ...]
    """Of each seed."""
    clips: int
    frames: int
    """Scored ones, of all seeds together; of a difference those of the poorer system."""
    coverage: float
    """Scored frames over all frames, 0 to 1."""


class Measured(Protocol):
    """What one metric says of one system."""

    rows: Sequence[Row]
    """Of its seeds; a clip of which no frame was scored counts for the coverage alone."""

    def scores(self, clips: Numbers) -> Floats:
        """(S, R) by seed over rows of numbers of clips (R, n); NaN where there is nothing to score."""
        ...


class Averaged:
    """A metric whose score is a weighted mean over clips."""

    def __init__(self, rows: Sequence[Row], *, by_frames: bool) -> None:
        """by_frames: clips weigh by their scored frames, else equally."""
        self.rows = rows
        values = [[math.nan if one is None or one.value is None else one.value for one in row] for row in rows]
        weights = [[0 if one is None else one.scored if by_frames else one.scored > 0 for one in row] for row in rows]
        self._weights = np.where(np.isfinite(values), np.asarray(weights, np.float64), 0)
        self._values = np.nan_to_num(np.asarray(values, np.float64))

    def scores(self, clips: Numbers) -> Floats:
        """See `Measured`."""
        weights = self._weights[:, clips]
        with np.errstate(invalid="ignore"):
            return np.asarray((self._values[:, clips] * weights).sum(-1) / weights.sum(-1))


class Combined:
    """A metric whose score is made of the states of all clips."""

    def __init__(self, rows: Sequence[Row], combine: Combine) -> None:
        self.rows = rows
        self._combine = combine

    def scores(self, clips: Numbers) -> Floats:
        """See `Measured`."""
        found = [[self._score(row, drawn) for drawn in clips.tolist()] for row in self.rows]
        return np.array([[math.nan if one is None else one for one in scores] for scores in found])

    def _score(self, row: Row, drawn: Sequence[int]) -> float | None:
        chosen = (row[number] for number in drawn)
        return self._combine([one for one in chosen if one is not None and one.scored])


class Standings:
    """All scores of a reproduction."""

    def __init__(self, evaluations: Sequence[Evaluation], seed: int = 0) -> None:
        """evaluations: one for each seed of the trainings, of the systems that were trained with it, on the same clips
        by the same metrics.  seed: of the bootstrap. Raises ValueError where the clips differ."""
        if len({evaluation.clips for evaluation in evaluations}) != 1:
            raise ValueError("the evaluations are of different clips")
        self._evaluations = tuple(evaluations)
        self._seed = seed
        self._drawn: dict[tuple[str, str, bytes], Floats] = {}
        self.clips = evaluations[0].clips
        self.metrics = {
            name: info
            for name, info in evaluations[0].metrics.items()
            if all(name in each.metrics for each in evaluations)
        }
        self.systems = tuple(dict.fromkeys(model for evaluation in evaluations for model in evaluation.models))

    def score(self, system: str, metric: str) -> Score | None:
        """None where nothing was scored."""
        measured = self._measured(system, metric)
        clips = _scored(measured.rows)
        if not clips.any():
            return None
        seeds = measured.scores(np.flatnonzero(clips)[None])[:, 0]
        drawn = self._resampled(system, metric, clips, stream=0)
        frames, coverage = _frames(measured.rows, np.ones_like(clips))
        mean = float(np.nanmean(seeds))
        return Score(mean, _interval(drawn), _finite(seeds), int(clips.sum()), frames, coverage)

    def difference(self, first: str, second: str, metric: str) -> Score | None:
        """The score of the first system less that of the second, over the clips that both have; None where there are
        none."""
        pair = [self._measured(first, metric), self._measured(second, metric)]
        clips = np.logical_and(*(_scored(measured.rows) for measured in pair))
        if not clips.any():
            return None
        one, other = (measured.scores(np.flatnonzero(clips)[None])[:, 0] for measured in pair)
        both = [self._resampled(name, metric, clips, stream=number) for number, name in enumerate((first, second))]
        drawn = None if both[0] is None or both[1] is None else both[0] - both[1]
        count = min(len(one), len(other))
        mean = float(np.nanmean(one) - np.nanmean(other))
        frames, coverage = min(_frames(measured.rows, clips) for measured in pair)
        seeds = _finite(one[:count] - other[:count])
        return Score(mean, _interval(drawn), seeds, int(clips.sum()), frames, coverage)

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

    def _measured(self, system: str, metric: str) -> Measured:
        rows = [each.clip_scores(system, metric) for each in self._evaluations if system in each.models]
        info = self.metrics[metric]
        if info.combine is not None:
            return Combined(rows, info.combine)
        return Averaged(rows, by_frames=info.weighting == "frames")

    def _resampled(self, system: str, metric: str, clips: NDArray[np.bool_], stream: int) -> Floats | None:
        """Scores (RESAMPLES,) of drawn clips and seeds; None where there are none to draw. The clips are the same for
        all systems; stream: the seeds are drawn apart for the two systems of a difference."""
        numbers = np.flatnonzero(clips)
        measured = self._measured(system, metric)
        if len(numbers) < 2 or _is_dear(measured.rows):
            return None
        key = (system, metric, clips.tobytes())
        if key not in self._drawn:
            draws = np.random.default_rng(self._seed).integers(0, len(numbers), (RESAMPLES, len(numbers)))
            self._drawn[key] = measured.scores(numbers[draws])
        by_seed = self._drawn[key]
        chosen = np.random.default_rng((self._seed, stream + 1)).integers(0, len(by_seed), by_seed.shape)
        return np.asarray(np.take_along_axis(by_seed, chosen, 0).mean(0))


def _scored(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """(C,): clips that any seed has a score of."""
    columns = zip(*rows, strict=True)
    return np.array([any(one is not None and one.scored for one in column) for column in columns], np.bool_)


def _frames(rows: Sequence[Row], clips: NDArray[np.bool_]) -> tuple[int, float]:
    """Scored frames of these clips, and their share of all frames."""
    chosen = [one for row in rows for one, wanted in zip(row, clips, strict=True) if wanted and one is not None]
    scored, total = sum(one.scored for one in chosen), sum(one.total for one in chosen)
    return scored, scored / total if total else 0.0


def _finite(seeds: Floats) -> tuple[float, ...]:
    return tuple(float(one) for one in seeds if math.isfinite(one))


def _is_dear(rows: Sequence[Row]) -> bool:
    states = (one.state for row in rows for one in row if one is not None)
    return any(sum(array.size for array in state.values()) > LARGEST_STATE for state in states)


def _interval(drawn: Floats | None) -> tuple[float, float] | None:
    finite = np.empty(0) if drawn is None else drawn[np.isfinite(drawn)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)
