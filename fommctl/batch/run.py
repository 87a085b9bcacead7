"""Batch: many animations from a job file; finished jobs are not repeated, and a failure does not stop the others."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fommctl.api.specs import StageEvent
from fommctl.batch.checks import Checker
from fommctl.batch.config import BatchConfig
from fommctl.batch.job_files import JobFile, Problem, line_of, problems_error, read_job_file
from fommctl.batch.jobs import Job, build
from fommctl.batch.keys import HASHES, Hashes, inputs_of, key_of
from fommctl.batch.schedule import Ended, Planned, Schedule, Watcher, plan_job
from fommctl.batch.status import OutputLocks, Status
from fommctl.batch.worker import Rendered, make_worker
from fommctl.errors import FommctlError, JobsFailedError
from fommctl.host import Host
from fommctl.workers import Outcome, Progress, run_jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """Every job of the file, and whether it has to run."""

    planned: tuple[Planned, ...]
    invalid: tuple[Problem, ...]
    """One problem for each job that cannot be done; a line whose patterns give no jobs counts as one."""
    hashes: Hashes = field(default_factory=Hashes)
    """Hashes of the inputs."""

    @property
    def to_run(self) -> list[Planned]:
        return [each for each in self.planned if each.reason is not None]

    def to_json(self) -> dict[str, Any]:
        """Return the plan for --dry-run --json."""
        jobs = [
            {"where": each.job.where, "output": str(each.job.output), "runs": each.reason is not None}
            | {"reason": each.reason or "done before"}
            for each in self.planned
        ]
        invalid = [
            {"where": each.where, "output": _output_of(each), "runs": False, "reason": each.message}
            for each in self.invalid
        ]
        return {"plan": sorted([*jobs, *invalid], key=lambda each: line_of(str(each["where"])))}


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchResult:
    """Outcome of each job, in the order of the file."""

    jobs: tuple[Mapping[str, Any], ...]
    """`where`, `output`, `state` (done, kept, failed, not started), `attempts`, `seconds`, `reason`, `hint`,
    `exit_code`, `frames` and `warnings`; None for unknown values."""
    status: Path
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of jobs by state."""
        found = Counter(str(job["state"]) for job in self.jobs)
        return {state: found[state] for state in ("done", "kept", "failed", "not started")}

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "counts": self.counts,
            "jobs": [dict(job) for job in self.jobs],
            "status": str(self.status),
            "seconds": round(self.seconds, 3),
        }


def make_plan(config: BatchConfig, host: Host, report: Progress = lambda done, total: None) -> BatchPlan:
    """Read and check all jobs, and find out which have to run, without writing anything. report(jobs checked, total).

    Raises InputError and UsageError if the file cannot be used, and, unless `keep_going` is set, UsageError with every
    problem of every job.
    """
    parsed = build(_read(config), config.jobs, config.defaults, host)
    checker = Checker(host, config.root, local=config.engine == "local")
    status = Status(config.status_path)
    status.refresh()
    total = 2 * len(parsed.jobs)
    problems = [*parsed.problems, *checker.check(parsed.jobs, lambda done: report(done, total))]
    refused = {each.number for each in problems if each.number}
    hashes, planned = Hashes(status.folder / HASHES), []
    good = [job for job in parsed.jobs if job.number not in refused]
    with hashes.ahead(path for job in good for path in inputs_of(job)):
        for done, job in enumerate(good, start=total - len(good) + 1):
            try:
                planned.append(plan_job(job, key_of(job, checker.identity(job), hashes), status.of(job.output)))
            except FommctlError as error:
                problems.append(Problem.of(job.where, error, job.number, job.output))
            report(done, total)
    problems.sort(key=lambda each: each.place)
    if parsed.fatal or (problems and not config.keep_going):
        raise problems_error(config.jobs.name, [*parsed.fatal, *problems])
    # The first problem of each job.
    invalid = {each.place: each for each in reversed(problems)}
    return BatchPlan(planned=tuple(planned), invalid=tuple(reversed(invalid.values())), hashes=hashes)


def _read(config: BatchConfig) -> JobFile:
    if config.is_timeline:
        from fommctl.batch.timelines import read_timeline

        return read_timeline(config.jobs, config.handles)
    return read_job_file(config.jobs)


def run(config: BatchConfig, host: Host, plan: BatchPlan, watcher: Watcher) -> BatchResult:
    """Do the jobs of a plan that have to run.

    Raises OutputError if nothing can be written any more. Failed jobs are in the result, not raised. However the run
    ends, there are no partial files, and the same command continues from there.
    """
    began = time.monotonic()
    devices = shared_devices(config)
    details = {"jobs": str(config.jobs), "to_run": len(plan.to_run), "output": str(config.status_path)}
    host.started(StageEvent(stage="batch", details=details))
    ended: dict[int, Ended] = {}
    left: set[int] = set()
    if plan.to_run:
        status = Status(config.status_path)
        locks = OutputLocks(status.folder)
        plan.hashes.remember()
        status.refresh()
        schedule = Schedule(by_model(plan.to_run), status, locks, config.retry, config.keep_going is False, watcher)
        outcomes = _outcomes(config, schedule, devices, watcher.progress)
        try:
            with closing(outcomes):
                for job, outcome in outcomes:
                    schedule.finish(job, outcome)
        finally:
            schedule.abandon()
        ended = {each.job.number: each for each in schedule.ended}
        left = {each.job.number for each in schedule.not_started}
    else:
        plan.hashes.remember()
    jobs = [*(_row(each.job, ended.get(each.job.number), each.job.number in left) for each in plan.planned)]
    rows = sorted([*jobs, *map(_invalid_row, plan.invalid)], key=lambda row: line_of(row["where"]))
    result = BatchResult(jobs=tuple(rows), status=config.status_path, seconds=time.monotonic() - began)
    host.finished(StageEvent(stage="batch", details=result.to_json()))
    return result


def _outcomes(
    config: BatchConfig, schedule: Schedule, devices: tuple[str, ...], report: Callable[[Job, int, int | None], None]
) -> Generator[tuple[Job, Outcome[Rendered]], None, None]:
    """Render the jobs of a schedule on this machine or on a Ray cluster; close the generator to stop early."""
    if config.engine == "ray":
        from fommctl.batch import ray

        return ray.run_jobs(schedule, config, report)
    workers = len(devices) if config.workers is None else config.workers
    return run_jobs(
        schedule,
        make_worker,
        lambda number: (devices[number % len(devices)],),
        workers=min(workers, len(schedule.planned)),
        timeout=config.timeout,
        report=report,
    )


def by_model(planned: Sequence[Planned]) -> list[Planned]:
    """Group jobs by model, so that workers load each only once; otherwise keep the order of the file."""
    models = list(dict.fromkeys(each.job.choice for each in planned))
    return sorted(planned, key=lambda each: models.index(each.job.choice))


def shared_devices(config: BatchConfig) -> tuple[str, ...]:
    """Return the devices that the workers share. Raises UsageError and MissingError for one that does not exist."""
    from fommctl.networks.inference.devices import resolve_device

    if config.engine == "ray":
        return config.devices
    if config.devices:
        for device in config.devices:
            resolve_device(device)
        return config.devices
    import torch

    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count())) or ("auto",)


def exit_code(result: BatchResult) -> int:
    """Return 0, or 6 if jobs failed or were not started."""
    counts = result.counts
    return JobsFailedError.exit_code if counts["failed"] or counts["not started"] else 0


def _row(job: Job, ended: Ended | None, left: bool) -> dict[str, Any]:
    state = ended.state if ended is not None else "not started" if left else "kept"
    error = (ended.error if ended is not None else None) or {}
    result = (ended.result if ended is not None else None) or {}
    return {
        "where": job.where,
        "output": str(job.output),
        "state": state,
        "attempts": 0 if ended is None else ended.attempts,
        "seconds": None if ended is None or ended.seconds is None else round(ended.seconds, 3),
        "reason": error.get("message"),
        "hint": error.get("hint"),
        "exit_code": error.get("exit_code"),
        "frames": result.get("frames"),
        "warnings": list(result.get("warnings", ())),
    }


def _invalid_row(problem: Problem) -> dict[str, Any]:
    return {
        "where": problem.where,
        "output": _output_of(problem),
        "state": "failed",
        "attempts": 0,
        "seconds": None,
        "reason": problem.message,
        "hint": problem.hint,
        "exit_code": problem.exit_code,
        "frames": None,
        "warnings": [],
    }


def _output_of(problem: Problem) -> str | None:
    return None if problem.output is None else str(problem.output)
