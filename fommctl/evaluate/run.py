"""Evaluate: models on the clips of a data set, or finished results against references, scored by metrics of plugins."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fommctl.api.specs import StageEvent
from fommctl.errors import InputError, OutputError, UsageError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.contestants import Contestant, of_models, of_predictions
from fommctl.evaluate.gathering import Gathered
from fommctl.evaluate.measuring import choose_sources
from fommctl.evaluate.plan import Plan, animations, finished_results, reconstructions
from fommctl.evaluate.report import write_report
from fommctl.evaluate.report_videos import shown_clips
from fommctl.evaluate.results import Evaluation, Mode
from fommctl.evaluate.saving import FOLDER as PREDICTIONS
from fommctl.evaluate.scoring import choose_metrics
from fommctl.evaluate.tables import CONFIGURATION, write_tables
from fommctl.evaluate.videos import FOLDER as VIDEOS
from fommctl.evaluate.videos import SideBySide
from fommctl.evaluate.workers import Failure, Job, Setup, prepare
from fommctl.files import exclusive_folder, remove_stale_files, write_text
from fommctl.host import Host
from fommctl.machine import usable_cores
from fommctl.presets.preset import Preset, load_preset
from fommctl.workers import Died, run_jobs

log = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]
"""report(frames done, frames in all or None)."""
LOCK, CLIPS, REPORT = ".evaluate.lock", "clips", "report.html"
MARKER = ".fommctl-evaluation"
"""Says that a folder is an evaluation's: what has other files is never written to."""


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


def run(
    config: EvaluateConfig, host: Host, report: Progress | None = None, *, commands: Sequence[str] = ()
) -> EvaluateResult:
    """Score all clips and write the tables and the page to `config.output`; what an earlier run has scored is kept.

    commands: lines that repeat the evaluation, for the page.
    Raises UsageError, ModelError, MissingError, OutputError, or InputError where not a single clip could be scored.
    Clips that cannot be scored are in the result, not raised.
    """
    _check_output(config)
    mode: Mode = "files" if config.finished else config.mode
    specs = choose_metrics(config.metrics, host, mode)
    contestants, plan, subject = _planned(config, host)
    sources = choose_sources(config, host, specs, plan.tasks, subject)
    details = {"config": config.to_json(), "clips": len(plan.tasks), "metrics": [spec.name for spec in specs]}
    host.started(StageEvent(stage="evaluate", details=details))
    with exclusive_folder(config.output, LOCK):
        remove_stale_files(config.output)
        # By this a later run sees that the output is its own, however early this one ends.
        write_text(config.output / MARKER, "This folder was made by fommctl evaluate.\n")
        (config.output / CLIPS).mkdir(exist_ok=True)
        _remove_unfinished(config.output)
        gathered = Gathered(config, contestants, plan, specs, sources)
        _score(config, gathered, report)
        evaluation = gathered.evaluation(mode, host)
        evaluation = replace(evaluation, report=config.output / REPORT)
        if not gathered.scored_anything and (config.output / REPORT).exists():
            kept = f"nothing was scored: the report of an earlier run stays: {config.output / REPORT}"
            log.warning("%s", kept)
            evaluation = replace(evaluation, warnings=(*evaluation.warnings, kept))
        else:
            # Before the videos, which take their time.
            write_tables(evaluation, config.output)
            videos = _videos(config, host, gathered, evaluation) if config.videos else {}
            write_report(evaluation, videos, config.output / REPORT, commands=commands)
    result = EvaluateResult(
        evaluation=evaluation, output=config.output, missing=gathered.missing_by_name(), kept=gathered.kept
    )
    host.finished(StageEvent(stage="evaluate", details=result.to_json()))
    return result


def _planned(config: EvaluateConfig, host: Host) -> tuple[tuple[Contestant, ...], Plan, str | None]:
    """Who is evaluated, on what, and what is seen in it (`face`) where a preset says it."""
    if config.finished:
        preset = None if config.preset is None else load_preset(config.preset, host, sets=config.sets)
        return of_predictions(config), finished_results(config), _subject(preset)
    from fommctl.presets.sections import ReconstructionParams

    contestants, preset = of_models(config, host)
    if config.mode == "reconstruction":
        section = preset.sections.get("reconstruction_params", ReconstructionParams())
        plan = reconstructions(config, section.num_videos)
    else:
        pairs_list = preset.section("dataset_params").pairs_list
        plan = animations(config, preset.pairs().num_pairs, None if pairs_list is None else Path(pairs_list))
    return contestants, plan, _subject(preset)


def _subject(preset: Preset | None) -> str | None:
    return None if preset is None or preset.framing is None else preset.framing.subject


def _check_output(config: EvaluateConfig) -> None:
    """Only a new folder, an empty one, or that of an earlier evaluation is written to, and none of clips."""
    folder = config.output
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"the output is no folder: {folder}", "Choose another one with -o.")
    for clips in (config.data, config.truth, *config.predictions):
        if clips is not None and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(clips)):
            raise UsageError(f"the output lies among the clips: {folder}", "Choose another folder with -o.")
    ours = (folder / MARKER).exists() or _is_our_configuration(folder / CONFIGURATION)
    if folder.exists() and not ours and any(path.name != LOCK for path in folder.iterdir()):
        raise UsageError(
            f"the output folder is not empty and holds no evaluation: {folder}", "Choose another one with -o."
        )


def _is_our_configuration(path: Path) -> bool:
    """Whether the file is one that an evaluation writes, also of versions that left no marker."""
    try:
        return any(line.startswith("fommctl:") for line in path.read_text("utf-8", "replace").splitlines())
    except OSError:
        return False


def _remove_unfinished(output: Path) -> None:
    """What a killed run left half-written in the folders of this output; files beside them are not looked at."""
    for folder in (CLIPS, PREDICTIONS, VIDEOS):
        for unfinished in [*(output / folder).rglob(".*.tmp"), *(output / folder).rglob(".*.tmp.*")]:
            if unfinished.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink(missing_ok=True)


def _score(config: EvaluateConfig, gathered: Gathered, report: Progress | None) -> None:
    """Every model on every clip, model by model. Raises InputError where none could be scored."""
    tasks = gathered.plan.tasks
    jobs = [Job(number, task) for number in range(len(gathered.contestants)) for task in tasks]
    workers = _workers(config, len(jobs))
    setup = Setup(
        config=config,
        contestants=gathered.contestants,
        metrics=gathered.ready,
        sources=gathered.sources,
        threads=max(1, usable_cores() // workers) if workers else 0,
    )
    done: dict[tuple[int, str], int] = {}
    lengths = [task.frames if config.max_frames is None else min(task.frames, config.max_frames) for task in tasks]
    total = sum(lengths) * len(gathered.contestants)

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


def _videos(config: EvaluateConfig, host: Host, gathered: Gathered, evaluation: Evaluation) -> dict[str, Path]:
    """Of the clips that the page shows: to encode all of them would take longer than to score them."""
    _, shown = shown_clips(evaluation)
    keys = gathered.clip_keys([each.clip for each in shown])
    return SideBySide(config, host, gathered.contestants, gathered.sources).make(keys)


def _workers(config: EvaluateConfig, jobs: int) -> int:
    """Processes: on a processor one a core, on an accelerator none but this one; one alone is none."""
    if config.workers is not None:
        wanted = config.workers
    elif config.finished:
        wanted = usable_cores()
    else:
        from fommctl.networks.inference.devices import resolve_device

        wanted = usable_cores() if resolve_device(config.device).type == "cpu" else 0
    return 0 if min(wanted, jobs) <= 1 else min(wanted, jobs)


def exit_code(result: EvaluateResult) -> int:
    """0, or why not all was scored: 6 where clips failed, 5 where metrics were left out."""
    from fommctl.errors import JobsFailedError, MissingError

    if result.evaluation.failed:
        return JobsFailedError.exit_code
    return MissingError.exit_code if result.missing else 0
