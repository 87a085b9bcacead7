"""Evaluates models on the clips of a data set, or finished results against references, with metrics of plugins."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fommctl.api.specs import StageEvent
from fommctl.errors import InputError, JobsFailedError, MissingError, UsageError
from fommctl.evaluate.config import EvaluateConfig, Mode
from fommctl.evaluate.jobs import Job, Setup, Worker
from fommctl.evaluate.keypoint_sources import choose_sources
from fommctl.evaluate.plan import (
    EvaluatedModel,
    Plan,
    animations,
    finished_predictions,
    finished_results,
    load_models,
    reconstructions,
)
from fommctl.evaluate.report import CONFIGURATION, write_report, write_tables
from fommctl.evaluate.results import Evaluation, EvaluationCollector
from fommctl.evaluate.scoring import choose_metrics
from fommctl.evaluate.store import PREDICTIONS
from fommctl.evaluate.videos import VIDEOS, SideBySide, shown_clips
from fommctl.files import exclusive_folder, read_regular, remove_stale_files, require_own_folder
from fommctl.host import Host
from fommctl.machine import usable_cores
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import Preset, ReconstructionParams
from fommctl.workers import Failed, Progress, run_jobs

log = logging.getLogger(__name__)
CLIPS, REPORT = "clips", "report.html"
MARKER = ".fommctl-evaluation"
"""Name of the file that marks and locks the folder of an evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """The result of one run."""

    evaluation: Evaluation
    output: Path
    missing: Mapping[str, str]
    """What is missing, by metric, for metrics of --metrics that were left out."""
    kept: int
    """Number of clips, counted for each model, whose scores are from an earlier run."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {**self.evaluation.to_json(), "output": str(self.output), "missing": dict(self.missing)}


def run(
    config: EvaluateConfig, host: Host, report: Progress | None = None, *, commands: Sequence[str] = ()
) -> EvaluateResult:
    """Score all clips and write tables and the page to `config.output`; scores of an earlier run are reused.

    Clips that cannot be scored are listed in the result.
    commands: command lines that repeat the evaluation, for the page.
    Raises UsageError, ModelError, MissingError, OutputError, and InputError if no clip can be scored.
    """
    _check_output(config)
    mode: Mode = "files" if config.finished else config.mode
    specs = choose_metrics(config.metrics, host, mode)
    models, plan, subject = _planned(config, host)
    sources = choose_sources(config, host, specs, plan.tasks, subject)
    details = {"config": config.to_json(), "clips": len(plan.tasks), "metrics": [spec.name for spec in specs]}
    host.started(StageEvent(stage="evaluate", details=details))
    with exclusive_folder(config.output, MARKER):
        remove_stale_files(config.output)
        (config.output / CLIPS).mkdir(exist_ok=True)
        _remove_unfinished(config.output)
        collector = EvaluationCollector(config, models, plan, specs, sources)
        _score(config, collector, report)
        evaluation = collector.evaluation(mode, host)
        evaluation = replace(evaluation, report=config.output / REPORT)
        if not collector.scored_anything and (config.output / REPORT).exists():
            kept = f"nothing was scored; the report of an earlier run was kept: {config.output / REPORT}"
            log.warning("%s", kept)
            evaluation = replace(evaluation, warnings=(*evaluation.warnings, kept))
        else:
            # Tables are written first, as the videos take long.
            write_tables(evaluation, config.output)
            videos = _videos(config, host, collector, evaluation) if config.videos else {}
            write_report(evaluation, videos, config.output / REPORT, commands=commands)
    result = EvaluateResult(
        evaluation=evaluation, output=config.output, missing=collector.missing_by_name(), kept=collector.kept
    )
    host.finished(StageEvent(stage="evaluate", details=result.to_json()))
    return result


def _planned(config: EvaluateConfig, host: Host) -> tuple[tuple[EvaluatedModel, ...], Plan, str | None]:
    """Return the models, the clips, and the subject (such as `face`) if a preset names one."""
    if config.finished:
        preset = None if config.preset is None else load_preset(config.preset, host, sets=config.sets)
        return finished_predictions(config), finished_results(config), _subject(preset)
    models, preset = load_models(config, host)
    if config.mode == "reconstruction":
        section = preset.reconstruction_params or ReconstructionParams()
        plan = reconstructions(config, section.num_videos)
    else:
        pairs_list = preset.dataset_params.pairs_list
        plan = animations(config, preset.pairs().num_pairs, None if pairs_list is None else Path(pairs_list))
    return models, plan, _subject(preset)


def _subject(preset: Preset | None) -> str | None:
    return None if preset is None or preset.framing is None else preset.framing.subject


def _check_output(config: EvaluateConfig) -> None:
    """Raise UsageError if the output is neither new, empty nor from an earlier evaluation, or is among the clips."""
    folder = config.output
    for clips in (config.data, config.truth, *config.predictions):
        if clips is not None and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(clips)):
            raise UsageError(
                f"the output is inside the folder of the clips: {folder}", "Choose another folder with -o."
            )
    require_own_folder(folder, MARKER, contents="evaluation", made_earlier=_has_our_configuration)


def _has_our_configuration(folder: Path) -> bool:
    """Return whether the folder is from an earlier version, which left no marker, by its configuration."""
    try:
        return any(
            line.startswith("fommctl:")
            for line in read_regular(folder / CONFIGURATION).decode("utf-8", "replace").splitlines()
        )
    except OSError:
        return False


def _remove_unfinished(output: Path) -> None:
    """Delete half-written files of a killed run from the folders of the output."""
    for folder in (CLIPS, PREDICTIONS, VIDEOS):
        for place in [output / folder, *(output / folder).rglob("*/")]:
            remove_stale_files(place)


def _score(config: EvaluateConfig, collector: EvaluationCollector, report: Progress | None) -> None:
    """Score all clips model by model. Raises InputError if none could be scored."""
    tasks = collector.plan.tasks
    jobs = [Job(number, task) for number in range(len(collector.models)) for task in tasks]
    workers = _workers(config, len(jobs))
    setup = Setup(
        config=config,
        models=collector.models,
        metrics=collector.ready,
        sources=collector.sources,
        threads=max(1, usable_cores() // workers) if workers else 0,
    )
    done: dict[tuple[int, str], int] = {}
    lengths = [task.frames if config.max_frames is None else min(task.frames, config.max_frames) for task in tasks]
    total = sum(lengths) * len(collector.models)

    def report_job(job: Job, frames: int, _: int | None) -> None:
        done[job.model, job.task.name] = frames
        if report:
            report(sum(done.values()), total)

    with closing(run_jobs(jobs, Worker, (setup,), workers=workers, report=report_job)) as outcomes:
        for job, outcome in outcomes:
            if isinstance(outcome, Failed):
                outcome.raise_if_disk_full()
                if outcome.exit_code != InputError.exit_code:
                    # Other errors, such as a missing package, concern all clips.
                    raise outcome.to_error()
            collector.add(job.model, job.task, outcome)
    collector.check()


def _videos(
    config: EvaluateConfig, host: Host, collector: EvaluationCollector, evaluation: Evaluation
) -> dict[str, Path]:
    """Make the videos of the clips on the page only, as encoding all would take longer than scoring."""
    _, shown = shown_clips(evaluation)
    keys = collector.clip_keys([each.clip for each in shown])
    return SideBySide(config, host, collector.models, collector.sources).make(keys)


def _workers(config: EvaluateConfig, jobs: int) -> int:
    """Return the number of worker processes: by default one per core on a CPU, none on an accelerator; never one."""
    if config.workers is not None:
        wanted = config.workers
    elif config.finished:
        wanted = usable_cores()
    else:
        from fommctl.networks.inference.devices import resolve_device

        wanted = usable_cores() if resolve_device(config.device).type == "cpu" else 0
    return 0 if min(wanted, jobs) <= 1 else min(wanted, jobs)


def exit_code(result: EvaluateResult) -> int:
    """Return 6 if clips failed, 5 if metrics of --metrics were left out, else 0."""
    if result.evaluation.failed:
        return JobsFailedError.exit_code
    return MissingError.exit_code if result.missing else 0
