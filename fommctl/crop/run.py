"""Cuts each subject of videos and pictures out as a square clip, framed as a model expects it."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec, StageEvent
from fommctl.crop.clips import CroppedSource, Job, make_worker
from fommctl.crop.config import CropConfig
from fommctl.crop.inputs import expand, key_of, names_of, stamp
from fommctl.crop.manifest import Manifest, Record
from fommctl.detection.detectors import choose_detector
from fommctl.errors import FommctlError, InputError, JobsFailedError, UsageError
from fommctl.files import not_there
from fommctl.host import Host
from fommctl.machine import usable_cores
from fommctl.models import registry
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import Framing
from fommctl.workers import Done, Failed, Outcome, Progress, WorkerCrashed, run_jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that could not be cropped."""

    source: str
    message: str
    hint: str | None


@dataclass(slots=True)
class CropResult:
    """The result of one run, in the order of the inputs."""

    clips: list[dict[str, Any]] = field(default_factory=list)
    """Clips, as rows of the manifest with the whole path as `output`; in a dry run also with `face` and `command`."""
    failed: list[Failure] = field(default_factory=list)
    without_subject: list[str] = field(default_factory=list)
    """Sources in which no subject was found."""
    skipped: list[str] = field(default_factory=list)
    """Sources whose clips were up to date; `clips` includes these."""
    detector: str = ""
    subject: str = ""
    """Kind of subject that the detector finds, such as `face`."""
    warnings: list[str] = field(default_factory=list)

    def error(self) -> FommctlError | None:
        """Return the error of the run: InputError without clips, JobsFailedError if some sources failed, else None."""
        if not self.clips:
            if self.failed:
                first = self.failed[0]
                more = f", and {len(self.failed) - 1} more failed" if len(self.failed) > 1 else ""
                return InputError(f"no input could be used: {first.message}{more}", first.hint)
            return InputError(
                f"no {self.subject} was found that is visible for long enough", "See --min-duration and --detector."
            )
        if self.failed:
            return JobsFailedError(
                f"{len(self.failed)} of the inputs failed: {self.failed[0].message}", self.failed[0].hint
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "clips": self.clips,
            "failed": [{"source": each.source, "message": each.message, "hint": each.hint} for each in self.failed],
            "without_subject": self.without_subject,
            "skipped": self.skipped,
            "detector": self.detector,
            "warnings": self.warnings,
        }


def run(config: CropConfig, host: Host, report: Progress | None = None) -> CropResult:
    """Crop all inputs to `config.output`, continuing an earlier run; a dry run writes nothing.

    Inputs that cannot be used are listed in the result. Raises UsageError for unusable options, MissingError if the
    detector is not available, and OutputError if clips cannot be written; finished clips stay.
    """
    (spec, built), framing = _detector_and_framing(config, host)
    detector = spec.name
    files, missing = expand(config.inputs, config.output)
    result = CropResult(detector=detector, subject=spec.subject)
    for path, reason in missing:
        error = not_there(path, reason)
        result.failed.append(Failure(os.fspath(path), error.message, error.hint))
    host.started(StageEvent(stage="crop", details={"inputs": list(map(os.fspath, files)), "detector": detector}))
    options = config.fingerprint(detector, (framing.subject, framing.width) if framing else None)
    folder = None if config.dry_run else config.output
    if files:
        with nullcontext() if folder is None else Manifest(folder, overwrite=config.overwrite) as manifest:
            _Run(_Plan(config, detector, built, framing, options, files), manifest, result, report).all_files()
    host.finished(StageEvent(stage="crop", details=result.to_json()))
    return result


@dataclass(frozen=True, slots=True)
class _Plan:
    config: CropConfig
    detector: str
    built: Detector
    framing: Framing | None
    options: str
    """Fingerprint of all options that affect the clips."""
    files: list[Path]


def _detector_and_framing(config: CropConfig, host: Host) -> tuple[tuple[DetectorSpec, Detector], Framing | None]:
    """Choose the detector and the framing, which is None if the preset's subject is not the detector's."""
    preset = load_preset(config.preset or registry.default(host).preset, host)
    framing = preset.framing
    if framing is None and config.detector is None:
        raise UsageError(
            f"the preset '{preset.name}' does not name a subject to detect",
            "Choose a detector with --detector, or a preset for faces with --preset.",
        )
    spec, built = choose_detector(host, framing.subject if framing else "", config.detector)
    return (spec, built), framing if framing and framing.subject == spec.subject else None


class _Run:
    """One run over all files: crops those that are not up to date, and collects the result."""

    def __init__(self, plan: _Plan, manifest: Manifest | None, result: CropResult, report: Progress | None) -> None:
        self.plan = plan
        self.manifest = manifest
        self.result = result
        self.report = report or (lambda done, total: None)
        self.outcomes: dict[str, Outcome[CroppedSource]] = {}
        """Outcomes by the key of the source."""
        self.stamps: dict[str, list[int]] = {}
        self.earlier: dict[str, Record | None] = {}
        """Records from before this run, of the sources that were begun."""

    def all_files(self) -> None:
        jobs = self._jobs()
        try:
            self._work(jobs)
        finally:
            for path in self.plan.files:
                self._collect(path)

    def _jobs(self) -> list[Job]:
        """Return jobs for the sources that are not up to date."""
        known = {} if self.manifest is None else self.manifest.records
        present = [] if self.manifest is None else os.listdir(self.manifest.folder)
        names = names_of(self.plan.files, {key: record.name for key, record in known.items()}, present)
        jobs = []
        for path in self.plan.files:
            key = key_of(path)
            try:
                self.stamps[key] = stamp(path)
            except (OSError, InputError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
                hint = "Check the target of the link." if path.is_symlink() else "Check the name."
                self.outcomes[key] = Failed(message=f"{path} cannot be read: {reason}", hint=hint)
                continue
            if self._is_current(key):
                self.outcomes[key] = Done(CroppedSource(tuple(known[key].rows)))
                self.result.skipped.append(os.fspath(path))
            else:
                jobs.append(Job(path, names[path], key))
        return jobs

    def _is_current(self, key: str) -> bool:
        return (
            self.manifest is not None
            and not self.plan.config.overwrite
            and self.manifest.is_current(key, self.stamps[key], self.plan.options)
        )

    def _work(self, jobs: list[Job]) -> None:
        plan, done = self.plan, len(self.plan.files) - len(jobs)

        def report_job(job: Job, frames: int, total: int | None) -> None:
            if len(plan.files) == 1:
                self.report(frames, total)

        def begin(job: Job) -> None:
            if self.manifest is not None:
                self.earlier[job.key] = self.manifest.records.get(job.key)
                self.manifest.begin(job.key, job.name)

        workers = min(len(jobs), plan.config.workers or usable_cores())
        # A single worker process would only add its start-up and a second detector.
        workers = workers if workers > 1 else 0
        arguments = (plan.config, plan.detector, plan.framing, *([] if workers else [plan.built]))
        for job, outcome in run_jobs(jobs, make_worker, arguments, workers=workers, report=report_job, begin=begin):
            if isinstance(outcome, WorkerCrashed):
                message = f"{job.source}: {outcome.message}"
                outcome = replace(outcome, message=message, hint="Try again with --workers 1.")
            self._take(job, outcome)
            done += 1
            if len(plan.files) > 1:
                self.report(done, len(plan.files))

    def _take(self, job: Job, outcome: Outcome[CroppedSource]) -> None:
        self.outcomes[job.key] = outcome
        if isinstance(outcome, Failed):
            if self.manifest is not None:
                self.manifest.fail(job.key, self.earlier[job.key])
            outcome.raise_if_disk_full()
            log.info("failed: %s", outcome.message)
            return
        for warning in outcome.result.warnings:
            log.warning(warning)
            self.result.warnings.append(warning)
        if self.manifest is not None:
            source = os.fspath(job.source)
            self.manifest.finish(job.key, source, self.stamps[job.key], self.plan.options, list(outcome.result.rows))

    def _collect(self, path: Path) -> None:
        outcome = self.outcomes.get(key_of(path))
        if outcome is None:
            return
        if isinstance(outcome, Failed):
            self.result.failed.append(Failure(os.fspath(path), outcome.message, outcome.hint))
            return
        cropped = outcome.result
        if not cropped.rows:
            self.result.without_subject.append(os.fspath(path))
        folder = self.plan.config.output or Path()
        for number, row in enumerate(cropped.rows):
            clip = {**row, "output": os.fspath(folder / row["output"])}
            if cropped.commands:
                clip |= {"face": cropped.faces[number], "command": cropped.commands[number]}
            self.result.clips.append(clip)
