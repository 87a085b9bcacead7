"""Results of an evaluation: scores by model, metric and clip, their means, and confidence intervals.

Intervals are by the percentile bootstrap over clips (Efron 1979): clips are drawn with replacement, because frames of
one clip are too similar to count as independent. The draws depend only on the seed.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl import __version__
from fommctl.api.metrics import ClipScores
from fommctl.api.specs import MetricSpec
from fommctl.errors import InputError, MissingError
from fommctl.evaluate.config import EvaluateConfig, Mode
from fommctl.evaluate.keypoint_sources import MODEL, ChosenSources
from fommctl.evaluate.plan import EvaluatedModel, Plan, Task
from fommctl.evaluate.store import key_of
from fommctl.host import Host
from fommctl.workers import Failed, Outcome

log = logging.getLogger(__name__)


Combine = Callable[[Sequence[ClipScores]], float | None]
RESAMPLES = 2000
LARGEST_STATE = 4096
"""Numbers per clip: a score that is combined from larger states (a distance of distributions) takes too long to
compute 2000 times, and has no interval."""
_BATCH = 100
"""Resamples at a time, so that memory does not grow with their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A metric over several clips."""

    mean: float | None
    """Mean, or the first model's less the second's; None where nothing was scored."""
    ci95: tuple[float, float] | None
    """Interval; None for fewer than two scored clips, and where it takes too long (see LARGEST_STATE)."""
    frames: int
    """Number that was scored."""
    coverage: float
    """Scored frames over all frames of the clips, 0 to 1."""
    clips: int
    """Number that was scored."""

    def to_json(self) -> dict[str, Any]:
        """Return finite numbers or null."""
        interval = None if self.ci95 is None else list(self.ci95)
        return {
            "mean": self.mean,
            "ci95": interval,
            "frames": self.frames,
            "coverage": self.coverage,
            "clips": self.clips,
        }


Scores = Mapping[tuple[str, str], tuple["ClipScores | None", ...]]
"""Scores of each clip by model and metric; None where the clip could not be scored at all."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that the table, the JSON, the CSV and the page show."""

    mode: Mode
    models: tuple[str, ...]
    """Names to print: of models, or of folders of finished results."""
    clips: tuple[str, ...]
    """Names; broken ones too."""
    frames: tuple[int, ...]
    """Numbers of frames compared of each clip; 0 for a broken clip."""
    rates: tuple[float, ...] = ()
    """Frames a second of each clip, for curves over time."""
    metrics: Mapping[str, MetricSpec]
    """Metrics by name, in the order to print; the first one ranks."""
    scores: Scores
    configuration: Mapping[str, Any]
    """All that the numbers depend on, as JSON values."""
    warnings: tuple[str, ...] = ()
    failed: tuple[Mapping[str, str], ...] = ()
    """`model`, `clip` and `message` of each that could not be scored."""
    report: Path | None = None
    seed: int = 0

    def clip_scores(self, model: str, metric: str) -> tuple[ClipScores | None, ...]:
        """Return the scores in the order of the clips."""
        return self.scores[model, metric]

    def summary(self, model: str, metric: str) -> Summary:
        """Return the mean over clips with its interval; with several models, over the same clips (see `compared`)."""
        counting = frozenset(self.compared(metric))
        scores = [one if number in counting else None for number, one in enumerate(self.scores[model, metric])]
        there = [number for number, one in enumerate(scores) if _value(one) is not None]
        resample = self._can_resample(metric, scores)
        mean, interval = _mean_and_interval(self._statistic(metric, scores), there, self.seed, resample=resample)
        return _summary(mean, interval, scores, there)

    def compared(self, metric: str) -> tuple[int, ...]:
        """Return the clips that means are taken over: none that a model failed on, or a model that failed on hard clips
        would seem better. Models that failed on every clip do not count."""
        rows = [self.scores[model, metric] for model in self.models]
        scored = [row for row in rows if any(one is not None for one in row)]
        return tuple(number for number in range(len(self.clips)) if all(row[number] is not None for row in scored))

    def difference(self, first: str, second: str, metric: str) -> Summary:
        """Return the mean of the first model minus that of the second over the clips that both have scored; both are
        resampled alike, so that what makes a clip hard for both cancels. frames and coverage are those of the model
        with fewer frames."""
        one, other = self.scores[first, metric], self.scores[second, metric]
        pairs = list(enumerate(zip(one, other, strict=True)))
        there = [number for number, pair in pairs if all(_value(each) is not None for each in pair)]
        of_one, of_other = self._statistic(metric, one), self._statistic(metric, other)

        def difference(draws: NDArray[np.int64]) -> NDArray[np.float64]:
            return of_one(draws) - of_other(draws)

        resample = self._can_resample(metric, (*one, *other))
        mean, interval = _mean_and_interval(difference, there, self.seed, resample=resample)
        poorer = min((_summary(mean, interval, scores, there) for scores in (one, other)), key=lambda each: each.frames)
        return poorer

    def best(self, metric: str) -> str | None:
        """Return the model with the best mean; None where none was scored."""
        return next(iter(self.ranking(metric)), None)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: `metrics` are those of the first model; with several, `models` and `differences` too."""
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
        """Return the scored models, best first."""
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
        spec = self.metrics[metric]
        if spec.combine is not None:
            return _combined(spec.combine, scores)
        values = np.array([0.0 if (value := _value(one)) is None else value for one in scores])
        by_frames = spec.weighting == "frames"
        weights = np.array([0.0 if one is None else float(one.scored if by_frames else 1) for one in scores])

        def weighted(draws: NDArray[np.int64]) -> NDArray[np.float64]:
            chosen = weights[draws]
            mean: NDArray[np.float64] = (values[draws] * chosen).sum(axis=1) / chosen.sum(axis=1)
            return mean

        return weighted

    def _can_resample(self, metric: str, scores: Sequence[ClipScores | None]) -> bool:
        """Return whether the metric can be computed for thousands of draws; see LARGEST_STATE."""
        sizes = (sum(array.size for array in one.state.values()) for one in scores if one is not None)
        return self.metrics[metric].combine is None or max(sizes, default=0) <= LARGEST_STATE


Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Function from indices of clips (R, n) to the score of each row (R,)."""


def _combined(combine: Combine, scores: Sequence[ClipScores | None]) -> Statistic:
    def statistic(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        chosen = ([scores[number] for number in row] for row in draws.tolist())
        rows = [combine([one for one in row if one is not None]) for row in chosen]
        return np.array([math.nan if value is None else value for value in rows])

    return statistic


def _mean_and_interval(
    statistic: Statistic, clips: Sequence[int], seed: int, *, resample: bool
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the statistic of these clips and its percentile interval; None where there is none."""
    if not clips:
        return None, None
    indices = np.array(clips, dtype=np.int64)
    mean = float(statistic(indices[None])[0])
    if not math.isfinite(mean):
        return None, None
    if len(clips) < 2 or not resample:
        return mean, None
    # Imported here: it takes longer than scoring a short clip.
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        # Draws without a value are left out below.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        drawn = bootstrap(
            (indices,),
            lambda draws, axis: statistic(draws),
            n_resamples=RESAMPLES,
            batch=_BATCH,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
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
    """Return the clip's score where it can be averaged or combined."""
    if scores is None or not scores.scored:
        return None
    if scores.state:
        return 0.0 if scores.value is None or not math.isfinite(scores.value) else scores.value
    return scores.value if scores.value is not None and math.isfinite(scores.value) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipResult:
    """The scores of a job."""

    key: str
    """Hash of all that the predictions depend on."""
    frames: int
    rate: float
    scores: Mapping[str, ClipScores]
    hashes: Mapping[str, str]
    """SHA-256 of the files, by what they are: truth, source, prediction."""
    warnings: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """Metrics whose packages or weights are absent, with what is missing."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Metrics that failed, with why."""
    kept: bool = False
    """Whether an earlier run had stored all of it."""


LISTED = 3


class EvaluationCollector:
    """Collects the outcomes of all jobs, in any order."""

    def __init__(
        self,
        config: EvaluateConfig,
        models: Sequence[EvaluatedModel],
        plan: Plan,
        specs: Sequence[MetricSpec],
        sources: ChosenSources,
    ) -> None:
        self.models = tuple(models)
        self.plan = plan
        self.specs = {spec.name: spec for spec in specs}
        self.sources = sources
        self.kept = 0
        self._config = config
        self._scored: dict[tuple[int, str], ClipResult] = {}
        self._failed: dict[tuple[int, str], list[str]] = {}
        self._missing = {
            spec.name: sources.missing[use] for spec in specs for use in spec.uses if use in sources.missing
        }

    @property
    def ready(self) -> tuple[str, ...]:
        """Metrics whose sources are there. Raises MissingError where there is none."""
        names = tuple(name for name in self.specs if name not in self._missing)
        if not names:
            raise MissingError(next(iter(self._missing.values()), "there is no metric"), "See 'fommctl plugins list'.")
        return names

    def add(self, model: int, task: Task, outcome: Outcome[ClipResult]) -> None:
        """Take the outcome of one job.  model: its index."""
        place = model, task.name
        if isinstance(outcome, Failed):
            self._failed.setdefault(place, []).append(outcome.message)
            return
        scored = outcome.result
        self._scored[place] = scored
        self.kept += scored.kept
        self._missing.update(scored.missing)
        for metric, why in scored.problems.items():
            self._failed.setdefault(place, []).append(f"{metric}: {why}")

    def check(self) -> None:
        """Raise InputError where not a single clip was scored."""
        if self._scored:
            return
        (_, name), messages = next(iter(self._failed.items()))
        raise InputError(
            f"none of the {len(self._failed)} clips could be scored; {name}: {messages[0]}",
            "Check that both sides show the same clips in the same size.",
        )

    def clip_keys(self, numbers: Sequence[int]) -> dict[Task, str]:
        """Return those of these clips that every model has been scored on, with a hash of all that is shown of them."""
        keys: dict[Task, str] = {}
        for task in (self.plan.tasks[number] for number in numbers):
            scored = self._of_clip(task.name)
            if all(scored):
                parts = [None if one is None else one.key for one in scored]
                keys[task] = key_of({"predictions": parts, **self.sources.to_json()})
        return keys

    def missing_by_name(self) -> dict[str, str]:
        """Return the metrics that were requested and left out; without --metrics only what is there is used."""
        return dict(self._missing) if self._config.metrics else {}

    def evaluation(self, mode: Mode, host: Host) -> Evaluation:
        """Put all scores in the order of the plan; a metric that lacks something it needs is left out."""
        metrics = {name: spec for name, spec in self.specs.items() if name not in self._missing}
        warnings = [*self._warnings()]
        idle = [name for name in metrics if not self._scores_anything(name)]
        if idle and self._config.metrics:
            warnings.append(f"no frame could be scored: {', '.join(idle)}")
        elif idle and len(idle) < len(metrics):
            warnings.append(f"left out, for no frame could be scored: {', '.join(idle)}")
            metrics = {name: spec for name, spec in metrics.items() if name not in idle}
        for warning in warnings:
            log.warning("%s", warning)
        names = tuple(each.name for each in self.models)
        clips = tuple(task.name for task in self.plan.tasks)
        first = [next((one for one in self._of_clip(clip) if one), None) for clip in clips]
        return Evaluation(
            mode=mode,
            models=names,
            clips=clips,
            frames=tuple(0 if one is None else one.frames for one in first),
            rates=tuple(25.0 if one is None else one.rate for one in first),
            metrics=metrics,
            scores={
                (name, metric): tuple(self._scores(number, clip, metric) for clip in clips)
                for number, name in enumerate(names)
                for metric in metrics
            },
            configuration=self._configuration(mode, host, metrics),
            warnings=tuple(warnings),
            failed=tuple(self._failures()),
            seed=self._config.seed,
        )

    def _of_clip(self, clip: str) -> list[ClipResult | None]:
        return [self._scored.get((number, clip)) for number in range(len(self.models))]

    def _failed_by_some(self, clip: str) -> bool:
        """Return whether one model was scored on this clip and another, scored elsewhere, was not."""
        able = {number for number, _ in self._scored}
        here = {number for number in able if (number, clip) in self._scored}
        return bool(here) and here != able

    def _scores(self, number: int, clip: str, metric: str) -> ClipScores | None:
        scored = self._scored.get((number, clip))
        return None if scored is None else scored.scores.get(metric)

    @property
    def scored_anything(self) -> bool:
        """Whether any metric has scored any frame."""
        return any(self._scores_anything(name) for name in self.specs)

    def _scores_anything(self, metric: str) -> bool:
        found = (scored.scores.get(metric) for scored in self._scored.values())
        return any(one is not None and one.scored for one in found)

    def _failures(self) -> list[Mapping[str, str]]:
        order = {task.name: number for number, task in enumerate(self.plan.tasks)}
        places = sorted(self._failed, key=lambda place: (place[0], order[place[1]]))
        return [
            {"model": self.models[number].name, "clip": clip, "message": "; ".join(self._failed[number, clip])}
            for number, clip in places
        ]

    def _warnings(self) -> list[str]:
        """Collect all warnings; equal ones of several clips are one."""
        found = [*self.plan.warnings, *(text for each in self.models for text in each.warnings)]
        for why in dict.fromkeys(self._missing.values()):
            alike = [metric for metric, reason in self._missing.items() if reason == why]
            found.append(f"left out: {', '.join(alike)}: {why}")
        of_clips: dict[str, list[str]] = {}
        for (number, clip), scored in self._scored.items():
            name = clip if len(self.models) == 1 else f"{self.models[number].name}, {clip}"
            for text in scored.warnings:
                of_clips.setdefault(text, []).append(name)
        for text, names in of_clips.items():
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            found.append(f"{', '.join(names[:LISTED])}{more}: {text}")
        left_out = [task.name for task in self.plan.tasks if self._failed_by_some(task.name)]
        if left_out:
            more = f" and {len(left_out) - LISTED} more" if len(left_out) > LISTED else ""
            found.append(f"in no mean, for not every model could be scored: {', '.join(left_out[:LISTED])}{more}")
        if self.sources.keypoints == MODEL and len(self.models) > 1:
            found.append("each model is measured with its own keypoints: their keypoint metrics have no common scale")
        sizes = {tuple(each.details["frame_size"]) for each in self.models if "frame_size" in each.details}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            found.append(f"the models make frames of different sizes ({shown}): compare their numbers with care")
        return found

    def _configuration(self, mode: Mode, host: Host, metrics: Mapping[str, MetricSpec]) -> dict[str, Any]:
        """Return everything that is needed to get the same numbers again."""
        hashes = {task.name: [one.hashes for one in self._of_clip(task.name) if one] for task in self.plan.tasks}
        return {
            "fommctl": __version__,
            "mode": mode,
            "models": {each.name: dict(each.details) for each in self.models},
            "metrics": {name: {"version": host.version("metric", name)} for name in metrics},
            **self.sources.to_json(),
            "seed": self._config.seed,
            "options": self._config.to_json(),
            "clips": {clip: [dict(one) for one in found] for clip, found in hashes.items()},
        }
