"""What an evaluation found: scores by model, metric and clip, their means, and how sure those are.

Intervals are of the percentile bootstrap over clips (Efron 1979): clips are drawn with replacement, for frames of one
clip are too much alike to count as independent. The draws follow from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fommctl.api.metrics import ClipScores
    from fommctl.api.specs import MetricSpec

Mode = Literal["reconstruction", "animation", "defaults", "files"]
Needs = Literal["truth", "identity", "driving", "nothing"]
Weighting = Literal["frames", "clips"]
Combine = Callable[[Sequence["ClipScores"]], float | None]
RESAMPLES = 2000
LARGEST_STATE = 4096
"""Numbers a clip: a score that is combined from larger states (a distance of distributions) is too dear to compute
2000 times over, and has no interval."""
_BLOCK = 100
"""Resamples at a time, so that memory does not grow with their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricInfo:
    """What has to be known of a metric to read its numbers."""

    summary: str
    unit: str
    lower_is_better: bool
    variant: str
    """What follows the first dot of the name (`paper`, `strict`, `luma`); empty where there is none."""
    needs: Needs
    weighting: Weighting = "frames"
    """How clips weigh in the mean: by their scored frames, or equally."""
    combine: Combine | None = None
    """The score of several clips, where it is no weighted mean."""

    @classmethod
    def of(cls, spec: MetricSpec) -> MetricInfo:
        """As a plugin states it."""
        return cls(
            summary=spec.summary,
            unit=spec.unit,
            lower_is_better=spec.lower_is_better,
            variant=spec.name.partition(".")[2],
            needs=spec.needs,
            weighting=spec.weighting,
            combine=spec.combine,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A metric over several clips."""

    mean: float | None
    """None where nothing was scored. Of a difference: of the first model less the second."""
    ci95: tuple[float, float] | None
    """None for fewer than two scored clips, and where it is too dear (see LARGEST_STATE)."""
    frames: int
    """Scored ones."""
    coverage: float
    """Scored frames over all frames of the clips, 0 to 1."""
    clips: int
    """Scored ones."""

    def to_json(self) -> dict[str, Any]:
        """Finite numbers or null."""
        interval = None if self.ci95 is None else list(self.ci95)
        return {
            "mean": self.mean,
            "ci95": interval,
            "frames": self.frames,
            "coverage": self.coverage,
            "clips": self.clips,
        }


Scores = Mapping[tuple[str, str], tuple["ClipScores | None", ...]]
"""By model and metric: of each clip, None where the clip could not be scored at all."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that the table, the JSON, the CSV and the page show."""

    mode: Mode
    models: tuple[str, ...]
    """Names to print: of models, or of folders of finished results."""
    clips: tuple[str, ...]
    """Names; broken ones too."""
    frames: tuple[int, ...]
    """Of each clip, as many as were compared; 0 for a broken clip."""
    rates: tuple[float, ...] = ()
    """Frames a second of each clip, for curves over time."""
    metrics: Mapping[str, MetricInfo]
    """By name, in the order to print; the first one ranks."""
    scores: Scores
    configuration: Mapping[str, Any]
    """All that the numbers depend on, as JSON values."""
    warnings: tuple[str, ...] = ()
    failed: tuple[Mapping[str, str], ...] = ()
    """`model`, `clip` and `message` of each that could not be scored."""
    report: Path | None = None
    seed: int = 0

    def clip_scores(self, model: str, metric: str) -> tuple[ClipScores | None, ...]:
        """In the order of the clips."""
        return self.scores[model, metric]

    def summary(self, model: str, metric: str) -> Summary:
        """The mean over clips with its interval; of several models, over the same clips (see `compared`)."""
        counting = frozenset(self.compared(metric))
        scores = [one if number in counting else None for number, one in enumerate(self.scores[model, metric])]
        there = [number for number, one in enumerate(scores) if _value(one) is not None]
        mean, interval = _bootstrap(self._statistic(metric, scores), there, self.seed)
        return _summary(mean, interval, scores, there)

    def compared(self, metric: str) -> tuple[int, ...]:
        """The clips that means are taken over: none that some model failed on, or a model that failed on hard clips
        would seem the better. A model that failed on all keeps the others from nothing."""
        rows = [self.scores[model, metric] for model in self.models]
        scored = [row for row in rows if any(one is not None for one in row)]
        return tuple(number for number in range(len(self.clips)) if all(row[number] is not None for row in scored))

    def difference(self, first: str, second: str, metric: str) -> Summary:
        """The mean of the first model less that of the second, over the clips that both scored; both are resampled
        alike, so that what makes a clip hard for both cancels. frames and coverage are those of the poorer one."""
        one, other = self.scores[first, metric], self.scores[second, metric]
        pairs = list(enumerate(zip(one, other, strict=True)))
        there = [number for number, pair in pairs if all(_value(each) is not None for each in pair)]
        of_one, of_other = self._statistic(metric, one), self._statistic(metric, other)

        def less(draws: NDArray[np.int64]) -> NDArray[np.float64] | None:
            minuend, subtrahend = of_one(draws), of_other(draws)
            return None if minuend is None or subtrahend is None else minuend - subtrahend

        mean, interval = _bootstrap(less, there, self.seed)
        poorer = min((_summary(mean, interval, scores, there) for scores in (one, other)), key=lambda each: each.frames)
        return poorer

    def best(self, metric: str) -> str | None:
        """The model with the best mean; None where none was scored."""
        return next(iter(self.ranking(metric)), None)

    def to_json(self) -> dict[str, Any]:
        """For --json: `metrics` are those of the first model; with several, `models` and `differences` follow."""
        first = self.models[0] if self.models else None
        data: dict[str, Any] = {
            "model": first,
            "mode": self.mode,
            "clips": sum(frames > 0 for frames in self.frames),
            "frames": sum(self.frames),
            "metrics": {} if first is None else self._metrics(first),
            "report": None if self.report is None else str(self.report),
            "warnings": list(self.warnings),
            "failed": [dict(each) for each in self.failed],
        }
        if len(self.models) > 1:
            data["models"] = {model: {"metrics": self._metrics(model)} for model in self.models}
            data["ranking"] = {metric: self.ranking(metric) for metric in self.metrics}
            data["differences"] = self._differences()
        return data

    def ranking(self, metric: str) -> list[str]:
        """The scored models, the best first."""
        means = {model: self.summary(model, metric).mean for model in self.models}
        sign = 1 if self.metrics[metric].lower_is_better else -1
        scored = {model: mean for model, mean in means.items() if mean is not None}
        return sorted(scored, key=lambda model: sign * scored[model])

    def _metrics(self, model: str) -> dict[str, Any]:
        return {metric: self.summary(model, metric).to_json() for metric in self.metrics}

    def _differences(self) -> list[dict[str, Any]]:
        pairs = [(one, other) for number, one in enumerate(self.models) for other in self.models[number + 1 :]]
        return [
            {"metric": metric, "model": one, "minus": other, **self.difference(one, other, metric).to_json()}
            for metric in self.metrics
            for one, other in pairs
        ]

    def _statistic(self, metric: str, scores: Sequence[ClipScores | None]) -> Statistic:
        info = self.metrics[metric]
        if info.combine is not None:
            return _combined(info.combine, scores)
        values = np.array([0.0 if (value := _value(one)) is None else value for one in scores])
        by_frames = info.weighting == "frames"
        weights = np.array([0.0 if one is None else float(one.scored if by_frames else 1) for one in scores])

        def weighted(draws: NDArray[np.int64]) -> NDArray[np.float64]:
            chosen = weights[draws]
            mean: NDArray[np.float64] = (values[draws] * chosen).sum(axis=1) / chosen.sum(axis=1)
            return mean

        return weighted


Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64] | None]
"""From numbers of clips (R, n) to the score of each row (R,); None where it is too dear for more than one row."""


def _combined(combine: Combine, scores: Sequence[ClipScores | None]) -> Statistic:
    present = [one for one in scores if one is not None]
    dear = any(sum(array.size for array in one.state.values()) > LARGEST_STATE for one in present)

    def statistic(draws: NDArray[np.int64]) -> NDArray[np.float64] | None:
        if dear and len(draws) > 1:
            return None
        chosen = ([scores[number] for number in row] for row in draws.tolist())
        rows = [combine([one for one in row if one is not None]) for row in chosen]
        return np.array([math.nan if value is None else value for value in rows])

    return statistic


def _bootstrap(
    statistic: Statistic, there: Sequence[int], seed: int
) -> tuple[float | None, tuple[float, float] | None]:
    """The statistic of the clips `there`, and its percentile interval. Not a number where it has none."""
    if not there:
        return None, None
    clips = np.array(there, dtype=np.int64)
    whole = statistic(clips[None])
    mean = None if whole is None or not np.isfinite(whole[0]) else float(whole[0])
    if mean is None or len(clips) < 2:
        return mean, None
    generator = np.random.default_rng(seed)
    blocks = []
    for _ in range(RESAMPLES // _BLOCK):
        block = statistic(clips[generator.integers(0, len(clips), (_BLOCK, len(clips)))])
        if block is None:
            return mean, None
        blocks.append(block)
    drawn = np.concatenate(blocks)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return mean, None
    low, high = np.percentile(drawn, (2.5, 97.5))
    return mean, (float(low), float(high))


def _summary(
    mean: float | None,
    interval: tuple[float, float] | None,
    scores: Sequence[ClipScores | None],
    there: Sequence[int],
) -> Summary:
    present = [one for one in scores if one is not None]
    scored = sum(one.scored for number in there if (one := scores[number]) is not None)
    total = sum(one.total for one in present)
    return Summary(mean=mean, ci95=interval, frames=scored, coverage=scored / total if total else 0.0, clips=len(there))


def _value(scores: ClipScores | None) -> float | None:
    """The clip's score where it has one that can be averaged, or states to combine."""
    if scores is None or not scores.scored:
        return None
    if scores.state:
        return 0.0 if scores.value is None or not math.isfinite(scores.value) else scores.value
    return scores.value if scores.value is not None and math.isfinite(scores.value) else None
