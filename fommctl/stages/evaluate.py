"""Evaluate: models on the clips of a data set, or finished results against references, scored by metrics of plugins."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api.specs import MetricSpec, StageEvent
from fommctl.errors import InputError, OutputError, UsageError
from fommctl.host import Host
from fommctl.stages.evaluation.contestants import Contestant, of_models, of_predictions
from fommctl.stages.evaluation.gathering import Gathered
from fommctl.stages.evaluation.options import EvaluateConfig
from fommctl.stages.evaluation.plan import Plan, animations, finished_results, reconstructions
from fommctl.stages.evaluation.results import Evaluation, Mode
from fommctl.stages.evaluation.scoring import choose_metrics
from fommctl.stages.evaluation.tables import CONFIGURATION, CSV, SUMMARY, write_tables
from fommctl.stages.evaluation.workers import Failure, Job, Setup, prepare
from fommctl.stages.output_folder import sole_run
from fommctl.stages.worker_processes import Died, processors, run_jobs

if TYPE_CHECKING:
    from fommctl.presets import Preset

log = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]
"""report(frames done, frames in all or None)."""
LOCK, CLIPS, REPORT = ".evaluate.lock", "clips", "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """What was found, and what was not."""

    evaluation: Evaluation
    output: Path
    missing: Mapping[str, str]
    """Metrics that were asked for by name and left out because something that they need is absent."""
    kept: int
    """Clips of a model that an earlier run had scored."""

    def to_json(self) -> dict[str, Any]:
        """For --json: more keys may be added, none of these changes."""
        return {**self.evaluation.to_json(), "output": str(self.output), "missing": dict(self.missing)}


def run(config: EvaluateConfig, host: Host, report: Progress | None = None) -> EvaluateResult:
    """Score all clips and write the tables and the page to `config.output`; what an earlier run has scored is kept.

    Raises UsageError, ModelError, MissingError, OutputError, or InputError where not a single clip could be scored.
    Clips that cannot be scored are in the result, not raised.
    """
    _check_output(config.output)
    mode: Mode = "files" if config.finished else config.mode
    specs = choose_metrics(config.metrics, host, mode)
    contestants, plan = _planned(config, host)
    details = {"config": config.to_json(), "clips": len(plan.tasks), "metrics": [spec.name for spec in specs]}
    host.started(StageEvent(stage="evaluate", details=details))
    with sole_run(config.output, LOCK, files=(CSV, SUMMARY, CONFIGURATION, REPORT)):
        _remove_unfinished(config.output / CLIPS)
        gathered = _score(config, contestants, plan, specs, report)
        evaluation = gathered.evaluation(mode, host)
        evaluation = replace(evaluation, report=config.output / REPORT)
        write_tables(evaluation, config.output)
    result = EvaluateResult(
        evaluation=evaluation, output=config.output, missing=gathered.missing_by_name(), kept=gathered.kept
    )
    host.finished(StageEvent(stage="evaluate", details=result.to_json()))
    return result


def _planned(config: EvaluateConfig, host: Host) -> tuple[tuple[Contestant, ...], Plan]:
    if config.finished:
        return of_predictions(config), finished_results(config)
    contestants, preset = of_models(config, host)
    if config.mode == "reconstruction":
        return contestants, reconstructions(config, _number(preset, "reconstruction_params", "num_videos"))
    pairs_list = preset.section("dataset_params").pairs_list
    most = _number(preset, "animate_params", "num_pairs")
    return contestants, animations(config, most, None if pairs_list is None else Path(pairs_list))


def _number(preset: Preset, section: str, key: str) -> int:
    from fommctl.sections import AnimateParams, ReconstructionParams

    defaults = {"reconstruction_params": ReconstructionParams(), "animate_params": AnimateParams()}
    value: int = getattr(preset.sections.get(section, defaults[section]), key)
    return value


def _check_output(folder: Path) -> None:
    """Only a new folder, an empty one, or that of an earlier evaluation is written to."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"the output is no folder: {folder}", "Choose another one with -o.")
    ours = any((folder / name).exists() for name in (CONFIGURATION, CLIPS))
    if folder.exists() and not ours and any(path.name != LOCK for path in folder.iterdir()):
        raise UsageError(
            f"the output folder is not empty and holds no evaluation: {folder}", "Choose another one with -o."
        )


def _remove_unfinished(folder: Path) -> None:
    """What a killed run left half-written."""
    for root, _, files in os.walk(folder):
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                (Path(root) / name).unlink(missing_ok=True)


def _score(
    config: EvaluateConfig,
    contestants: tuple[Contestant, ...],
    plan: Plan,
    specs: tuple[MetricSpec, ...],
    report: Progress | None,
) -> Gathered:
    """Every model on every clip, model by model."""
    jobs = [Job(number, task) for number in range(len(contestants)) for task in plan.tasks]
    workers = _workers(config, len(jobs))
    names = tuple(spec.name for spec in specs)
    threads = max(1, processors() // workers) if workers else 0
    setup = Setup(config=config, contestants=contestants, metrics=names, threads=threads)
    gathered = Gathered(config, contestants, plan, specs)
    done: dict[tuple[int, str], int] = {}
    total = None
    if all(task.frames is not None for task in plan.tasks):
        total = sum(min(task.frames or 0, config.max_frames or task.frames or 0) for task in plan.tasks)
        total *= len(contestants)

    def tell(job: Job, frames: int, _: int | None) -> None:
        done[job.contestant, job.task.name] = frames
        if report:
            report(sum(done.values()), total)

    with closing(run_jobs(jobs, prepare, (setup,), workers=workers, tell=tell)) as outcomes:
        for job, outcome in outcomes:
            if isinstance(outcome, Died):
                outcome = Failure(InputError(outcome.reason))
            if isinstance(outcome, Failure) and outcome.fatal:
                raise outcome.error
            gathered.add(job, outcome)
    gathered.check()
    return gathered


def _workers(config: EvaluateConfig, jobs: int) -> int:
    """Processes: on a processor one a core, on an accelerator none but this one; one alone is none."""
    if config.workers is not None:
        wanted = config.workers
    elif config.finished:
        wanted = processors()
    else:
        from fommctl.core.fast.devices import resolve_device

        wanted = processors() if resolve_device(config.device).type == "cpu" else 0
    return 0 if min(wanted, jobs) <= 1 else min(wanted, jobs)


def exit_code(result: EvaluateResult) -> int:
    """0, or why not all was scored: 6 where clips failed, 5 where metrics were left out."""
    from fommctl.errors import JobsFailedError, MissingError

    if result.evaluation.failed:
        return JobsFailedError.exit_code
    return MissingError.exit_code if result.missing else 0
