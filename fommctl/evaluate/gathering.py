"""The outcomes of all jobs, put together to what an evaluation found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fommctl import __version__
from fommctl.api.metrics import ClipScores
from fommctl.api.specs import MetricSpec
from fommctl.errors import InputError, MissingError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.contestants import Contestant
from fommctl.evaluate.measuring import Sources
from fommctl.evaluate.plan import Plan, Task
from fommctl.evaluate.results import Evaluation, MetricInfo, Mode
from fommctl.evaluate.sources import MODEL
from fommctl.evaluate.store import key_of
from fommctl.evaluate.workers import Failure, Job, Outcome, Scored
from fommctl.host import Host

log = logging.getLogger(__name__)
LISTED = 3


class Gathered:
    """Takes outcomes in any order."""

    def __init__(
        self,
        config: EvaluateConfig,
        contestants: Sequence[Contestant],
        plan: Plan,
        specs: Sequence[MetricSpec],
        sources: Sources,
    ) -> None:
        self.contestants = tuple(contestants)
        self.plan = plan
        self.specs = {spec.name: spec for spec in specs}
        self.sources = sources
        self.kept = 0
        self._config = config
        self._scored: dict[tuple[int, str], Scored] = {}
        self._failed: dict[tuple[int, str], list[str]] = {}
        self._missing = {
            spec.name: sources.missing[use] for spec in specs for use in spec.uses if use in sources.missing
        }

    @property
    def ready(self) -> tuple[str, ...]:
        """The metrics that have what they measure with. Raises MissingError where there is none."""
        names = tuple(name for name in self.specs if name not in self._missing)
        if not names:
            raise MissingError(next(iter(self._missing.values()), "there is no metric"), "See 'fommctl plugins list'.")
        return names

    def add(self, job: Job, outcome: Outcome) -> None:
        """What came out of one job."""
        place = job.contestant, job.task.name
        if isinstance(outcome, Failure):
            self._failed.setdefault(place, []).append(outcome.error.message)
            return
        self._scored[place] = outcome
        self.kept += outcome.kept
        self._missing.update(outcome.missing)
        for metric, why in outcome.problems.items():
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
        """Of these clips of the plan, those that every model has scored, with a key of all that is shown of them."""
        keys: dict[Task, str] = {}
        for task in (self.plan.tasks[number] for number in numbers):
            scored = self._of_clip(task.name)
            if all(scored):
                parts = [None if one is None else one.key for one in scored]
                keys[task] = key_of({"predictions": parts, **self.sources.to_json()})
        return keys

    def missing_by_name(self) -> dict[str, str]:
        """The metrics that were left out and had been asked for; without --metrics only what is there is used."""
        return dict(self._missing) if self._config.metrics else {}

    def evaluation(self, mode: Mode, host: Host) -> Evaluation:
        """All scores in the order of the plan. A metric that could not be computed everywhere is left out."""
        metrics = {name: MetricInfo.of(spec) for name, spec in self.specs.items() if name not in self._missing}
        warnings = [*self._warnings()]
        idle = [name for name in metrics if not self._scores_anything(name)]
        if idle and self._config.metrics:
            warnings.append(f"no frame could be scored: {', '.join(idle)}")
        elif idle and len(idle) < len(metrics):
            warnings.append(f"left out, for no frame could be scored: {', '.join(idle)}")
            metrics = {name: info for name, info in metrics.items() if name not in idle}
        for warning in warnings:
            log.warning("%s", warning)
        names = tuple(each.name for each in self.contestants)
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

    def _of_clip(self, clip: str) -> list[Scored | None]:
        return [self._scored.get((number, clip)) for number in range(len(self.contestants))]

    def _failed_by_some(self, clip: str) -> bool:
        """Whether one model could be scored there and one that was scored elsewhere could not."""
        able = {number for number, _ in self._scored}
        here = {number for number in able if (number, clip) in self._scored}
        return bool(here) and here != able

    def _scores(self, contestant: int, clip: str, metric: str) -> ClipScores | None:
        scored = self._scored.get((contestant, clip))
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
            {"model": self.contestants[number].name, "clip": clip, "message": "; ".join(self._failed[number, clip])}
            for number, clip in places
        ]

    def _warnings(self) -> list[str]:
        """Those of clips that say the same are counted."""
        found = [*self.plan.warnings, *(text for each in self.contestants for text in each.warnings)]
        for why in dict.fromkeys(self._missing.values()):
            alike = [metric for metric, reason in self._missing.items() if reason == why]
            found.append(f"left out: {', '.join(alike)}: {why}")
        of_clips: dict[str, list[str]] = {}
        for (number, clip), scored in self._scored.items():
            name = clip if len(self.contestants) == 1 else f"{self.contestants[number].name}, {clip}"
            for text in scored.warnings:
                of_clips.setdefault(text, []).append(name)
        for text, names in of_clips.items():
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            found.append(f"{', '.join(names[:LISTED])}{more}: {text}")
        left_out = [task.name for task in self.plan.tasks if self._failed_by_some(task.name)]
        if left_out:
            more = f" and {len(left_out) - LISTED} more" if len(left_out) > LISTED else ""
            found.append(f"in no mean, for not every model could be scored: {', '.join(left_out[:LISTED])}{more}")
        if self.sources.keypoints == MODEL and len(self.contestants) > 1:
            found.append("each model is measured with its own keypoints: their keypoint metrics have no common scale")
        sizes = {tuple(each.details["frame_size"]) for each in self.contestants if "frame_size" in each.details}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            found.append(f"the models make frames of different sizes ({shown}): compare their numbers with care")
        return found

    def _configuration(self, mode: Mode, host: Host, metrics: Mapping[str, MetricInfo]) -> dict[str, Any]:
        """Everything that is needed to get the same numbers again."""
        hashes = {task.name: [one.hashes for one in self._of_clip(task.name) if one] for task in self.plan.tasks}
        return {
            "fommctl": __version__,
            "mode": mode,
            "models": {each.name: dict(each.details) for each in self.contestants},
            "metrics": {name: {"version": host.version("metric", name)} for name in metrics},
            **self.sources.to_json(),
            "seed": self._config.seed,
            "options": self._config.to_json(),
            "clips": {clip: [dict(one) for one in found] for clip, found in hashes.items()},
        }
