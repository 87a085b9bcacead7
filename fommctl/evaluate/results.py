"""Results of an evaluation: scores by model, metric and clip, with means and confidence intervals.

Intervals are from the percentile bootstrap over clips (Efron 1979): whole clips are resampled, as frames of a clip are
not independent. The draws depend only on the seed.
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
"""Most numbers in a clip's state for which a combined score has an interval: a score of larger states, such as a
distance of distributions, takes too long to compute RESAMPLES times."""
_BATCH = 100
"""Number of resamples computed at a time, to limit memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A metric over several clips."""

    mean: float | None
    """Mean over clips, or the difference of two models' means; None if nothing was scored."""
    ci95: tuple[float, float] | None
    """95 % confidence interval; None for fewer than two scored clips, and for large states (see LARGEST_STATE)."""
    frames: int
    """Number of scored frames."""
    coverage: float
    """Share of scored frames in all frames of the clips, 0 to 1."""
    clips: int
    """Number of scored clips."""

    def to_json(self) -> dict[str, Any]:
        """Return the summary for --json, with finite numbers or null."""
        interval = None if self.ci95 is None else list(self.ci95)
        return {
            "mean": self.mean,
            "ci95": interval,
            "frames": self.frames,
            "coverage": self.coverage,
            "clips": self.clips,
        }


Scores = Mapping[tuple[str, str], tuple["ClipScores | None", ...]]
"""Scores of the clips by (model, metric); None for a clip that could not be scored at all."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All scores of an evaluation, from which tables, JSON, CSV and the page are made."""

    mode: Mode
    models: tuple[str, ...]
    """Names of the models, or of the folders of finished results."""
    clips: tuple[str, ...]
    """Names of the clips, including unreadable ones."""
    frames: tuple[int, ...]
    """Number of compared frames of each clip; 0 for a clip that could not be scored."""
    rates: tuple[float, ...] = ()
    """Frames per second of each clip."""
    metrics: Mapping[str, MetricSpec]
    """Metrics by name, in the order of the tables; models are ranked by the first."""
    scores: Scores
    configuration: Mapping[str, Any]
    """JSON values for everything that the scores depend on."""
    warnings: tuple[str, ...] = ()
    failed: tuple[Mapping[str, str], ...] = ()
    """`model`, `clip` and `message` of each failure."""
    report: Path | None = None
    seed: int = 0

    def clip_scores(self, model: str, metric: str) -> tuple[ClipScores | None, ...]:
        """Return the scores in the order of the clips."""
        return self.scores[model, metric]

    def summary(self, model: str, metric: str) -> Summary:
        """Return the mean over clips with its interval; for all models over the same clips (see `compared`)."""
        counting = frozenset(self.compared(metric))
        scores = [one if number in counting else None for number, one in enumerate(self.scores[model, metric])]
        valid = [number for number, one in enumerate(scores) if _value(one) is not None]
        resample = self._can_resample(metric, scores)
        mean, interval = _mean_and_interval(self._statistic(metric, scores), valid, self.seed, resample=resample)
        return _summary(mean, interval, scores, valid)

    def compared(self, metric: str) -> tuple[int, ...]:
        """Return the indices of the clips over which means are taken: those that every model was scored on.

        Otherwise a model that fails on hard clips would seem better. Models that failed on all clips are ignored.
        """
        rows = [self.scores[model, metric] for model in self.models]
        scored = [row for row in rows if any(one is not None for one in row)]
        return tuple(number for number in range(len(self.clips)) if all(row[number] is not None for row in scored))

    def difference(self, first: str, second: str, metric: str) -> Summary:
        """Return the mean of the first model minus that of the second, over the clips that are scored for both.

        The bootstrap is paired: both models are resampled alike, so that the difficulty of clips cancels. `frames` and
        `coverage` are those of the model with fewer scored frames.
        """
        one, other = self.scores[first, metric], self.scores[second, metric]
        pairs = list(enumerate(zip(one, other, strict=True)))
        valid = [number for number, pair in pairs if all(_value(each) is not None for each in pair)]
        of_one, of_other = self._statistic(metric, one), self._statistic(metric, other)

        def difference(draws: NDArray[np.int64]) -> NDArray[np.float64]:
            return of_one(draws) - of_other(draws)

        resample = self._can_resample(metric, (*one, *other))
        mean, interval = _mean_and_interval(difference, valid, self.seed, resample=resample)
        return min((_summary(mean, interval, scores, valid) for scores in (one, other)), key=lambda each: each.frames)

    def best(self, metric: str) -> str | None:
        """Return the model with the best mean; None if no model was scored."""
        return next(iter(self.ranking(metric)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation for --json: `metrics` of the first model, and with several models also `models`,
        `ranking` and `differences`."""
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
        """Return the scored models, the best first."""
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
        """Return whether the metric can be computed for all resamples (see LARGEST_STATE)."""
        sizes = (sum(array.size for array in one.state.values()) for one in scores if one is not None)
        return self.metrics[metric].combine is None or max(sizes, default=0) <= LARGEST_STATE


Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""statistic(indices of clips (R, n)): the score of each row (R,)."""


def _combined(combine: Combine, scores: Sequence[ClipScores | None]) -> Statistic:
    def statistic(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        chosen = ([scores[number] for number in row] for row in draws.tolist())
        rows = [combine([one for one in row if one is not None]) for row in chosen]
        return np.array([math.nan if value is None else value for value in rows])

    return statistic


def _mean_and_interval(
    statistic: Statistic, clips: Sequence[int], seed: int, *, resample: bool
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the statistic of these clips and its percentile interval, each None if there is none."""
    if not clips:
        return None, None
    indices = np.array(clips, dtype=np.int64)
    mean = float(statistic(indices[None])[0])
    if not math.isfinite(mean):
        return None, None
    if len(clips) < 2 or not resample:
        return mean, None
    # Imported here, as it takes longer than scoring a short clip.
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        # Draws without a value are dropped below.
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
    valid: Sequence[int],
) -> Summary:
    scored = sum(one.scored for number in valid if (one := scores[number]) is not None)
    total = sum(one.total for one in scores if one is not None)
    return Summary(mean=mean, ci95=interval, frames=scored, coverage=scored / total if total else 0.0, clips=len(valid))


def _value(scores: ClipScores | None) -> float | None:
    """Return the clip's score for averages, 0 for one that is only combined by its state, None without a score."""
    if scores is None or not scores.scored:
        return None
    if scores.state:
        return 0.0 if scores.value is None or not math.isfinite(scores.value) else scores.value
    return scores.value if scores.value is not None and math.isfinite(scores.value) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipResult:
    """The scores of one model on one clip."""

    key: str
    """Hash of everything that the predictions depend on."""
    frames: int
    """Number of compared frames."""
    rate: float
    """Frames per second."""
    scores: Mapping[str, ClipScores]
    """Scores by metric."""
    hashes: Mapping[str, str]
    """SHA-256 of the files by role: `truth`, `source`, `prediction`."""
    warnings: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """What is missing, by metric, for metrics without their packages or weights."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Reasons by metric, for metrics that failed."""
    kept: bool = False
    """Whether all scores are from an earlier run."""


LISTED = 3
"""Most names in a message."""


class EvaluationCollector:
    """Collects the outcomes of jobs, in any order, and makes the evaluation of them."""

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
        """Metrics whose sources are available. Raises MissingError if there are none."""
        names = tuple(name for name in self.specs if name not in self._missing)
        if not names:
            raise MissingError(
                next(iter(self._missing.values()), "there are no metrics"), "See 'fommctl plugins list'."
            )
        return names

    def add(self, model: int, task: Task, outcome: Outcome[ClipResult]) -> None:
        """Add the outcome of one job.  model: index of the model."""
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
        """Raise InputError if no clip was scored."""
        if self._scored:
            return
        (_, name), messages = next(iter(self._failed.items()))
        raise InputError(
            f"none of the {len(self._failed)} clips could be scored; {name}: {messages[0]}",
            "Check that both sides show the same clips in the same size.",
        )

    def clip_keys(self, numbers: Sequence[int]) -> dict[Task, str]:
        """Return hashes of the predictions and sources of clips, for those that were scored with all models.

        numbers: indices of the clips.
        """
        keys: dict[Task, str] = {}
        for task in (self.plan.tasks[number] for number in numbers):
            scored = self._of_clip(task.name)
            if all(scored):
                parts = [None if one is None else one.key for one in scored]
                keys[task] = key_of({"predictions": parts, **self.sources.to_json()})
        return keys

    def missing_by_name(self) -> dict[str, str]:
        """Return the metrics of --metrics that were left out, with reasons; none without --metrics."""
        return dict(self._missing) if self._config.metrics else {}

    def evaluation(self, mode: Mode, host: Host) -> Evaluation:
        """Return the evaluation of all outcomes, without metrics that lack something they need.

        Its warnings are logged.
        """
        metrics = {name: spec for name, spec in self.specs.items() if name not in self._missing}
        warnings = self._warnings()
        idle = [name for name in metrics if not self._scores_anything(name)]
        if idle and self._config.metrics:
            warnings.append(f"no frame could be scored: {', '.join(idle)}")
        elif idle and len(idle) < len(metrics):
            warnings.append(f"left out, as no frame could be scored: {', '.join(idle)}")
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
        """Return whether this clip was scored for some models but not for all that were scored on any clip."""
        scored = {number for number, _ in self._scored}
        here = {number for number in scored if (number, clip) in self._scored}
        return bool(here) and here != scored

    def _scores(self, number: int, clip: str, metric: str) -> ClipScores | None:
        scored = self._scored.get((number, clip))
        return None if scored is None else scored.scores.get(metric)

    @property
    def scored_anything(self) -> bool:
        """Whether any frame was scored by any metric."""
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
        """Return all warnings, with equal ones of several clips combined."""
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
            found.append(f"left out of all means, as some models failed: {', '.join(left_out[:LISTED])}{more}")
        if self.sources.keypoints == MODEL and len(self.models) > 1:
            found.append("each model is measured with its own keypoints: their keypoint metrics cannot be compared")
        sizes = {tuple(each.details["frame_size"]) for each in self.models if "frame_size" in each.details}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            found.append(f"the models render frames of different sizes ({shown}): compare their numbers with care")
        return found

    def _configuration(self, mode: Mode, host: Host, metrics: Mapping[str, MetricSpec]) -> dict[str, Any]:
        """Return JSON values for everything that the scores depend on."""
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
