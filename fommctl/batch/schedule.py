"""Deciding which jobs have to run, scheduling them, and recording them in the status file."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from fommctl.batch.jobs import Job
from fommctl.batch.keys import Key
from fommctl.batch.status import OutputLocks, Record, Status, output_fingerprint
from fommctl.batch.worker import Rendered
from fommctl.errors import FommctlError, OutputError, UsageError
from fommctl.media.marking import OURS, read_statement
from fommctl.media.output_paths import is_pattern, matching, remove_stale_output
from fommctl.provenance.sidecar import sidecar_of
from fommctl.workers import Backoff, Done, Failed, Outcome, TimedOut, WorkerCrashed, failure

log = logging.getLogger(__name__)
POLL_S = 0.5
"""Seconds between two attempts to lock an output that another batch has locked."""
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A job that can run."""

    job: Job
    key: Key
    reason: str | None
    """Why it has to run; None: the result of an earlier batch is still valid."""
    record: Record | None = None
    """Its record in the status file when it was planned."""


def plan_job(job: Job, key: Key, record: Record | None) -> Planned:
    """Decide whether a job with this record has to run. Raises UsageError if it would replace a file that no batch has
    made, or that was changed since."""
    reason = reason_to_run(job, key, record)
    if reason is not None and not may_replace(job, record):
        by_batch = record is not None and record.fingerprint is not None
        what = "was changed after a batch made it" if by_batch else "already exists, and no batch has made it"
        raise UsageError(f"the output {what}: {job.output}", "Use --overwrite, or another output.")
    if reason is None and record is not None and record.fingerprint not in (None, output_fingerprint(job.output)):
        log.warning("%s was changed after a batch made it and is kept; --overwrite renders it again", job.output)
    return Planned(job, key, reason, record)


def reason_to_run(job: Job, key: Key, record: Record | None) -> str | None:
    """Return `new`, `missing`, `missing: sidecar`, `changed: ...`, `failed: ...` or `interrupted`; None if the job need
    not run."""
    if record is None:
        return "new"
    if record.state == "failed":
        return f"failed: {(record.error or {}).get('message', 'for no known reason')}"
    if record.state != "done":
        return "interrupted"
    found = output_fingerprint(job.output)
    if found is None:
        return "missing"
    if record.key != key.value:
        changed = [name for name, part in key.parts.items() if record.parts.get(name) != part]
        return f"changed: {', '.join(changed)}" if changed else "changed"
    if job.config.sidecar and not sidecar_of(job.output).is_file():
        return "missing: sidecar"
    edited = record.fingerprint not in (None, found)
    return "changed: output" if edited and job.config.overwrite else None


def may_replace(job: Job, record: Record | None) -> bool:
    """Return whether the output does not exist, was made by a batch, or may be replaced anyway.

    A result that was edited after the batch is somebody's work, and counts as not made by a batch.
    """
    found = output_fingerprint(job.output)
    if job.config.overwrite or found is None:
        return True
    if record is None:
        return False
    if record.fingerprint == found or (record.state == "done" and record.fingerprint is None):
        return True
    # If a batch was killed between writing the output and its record, the output's own mark identifies it.
    return record.state in ("started", "interrupted") and _says_it_is_ours(job)


def _says_it_is_ours(job: Job) -> bool:
    frames = (path for _, path in matching(job.output)) if is_pattern(job.output) else iter([job.output])
    try:
        return all((read_statement(path).comment or "").startswith(OURS) for path in frames)
    except (FommctlError, OSError):
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Outcome of a job."""

    job: Job
    state: Literal["done", "kept", "failed"]
    """kept: done before, or by another batch at the same time."""
    attempts: int
    seconds: float | None = None
    result: Mapping[str, Any] | None = None
    """AnimateResult.to_json()."""
    error: Mapping[str, Any] | None = None
    """`message`, `hint` and `exit_code`."""


class Watcher(Protocol):
    """Observer of a batch, to show its progress."""

    def started(self, job: Job, attempt: int) -> None: ...

    def progress(self, job: Job, done: int, total: int | None) -> None: ...

    def failed_once(self, job: Job, message: str) -> None:
        """Report a failure after which the job is tried again."""

    def ended(self, ended: Ended) -> None: ...


@dataclass(slots=True)
class _Turn:
    """A job and its attempts so far."""

    planned: Planned
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    earliest: float = 0.0
    locked: bool = False
    told: bool = False
    """Whether the user was already told that another batch has the output."""


@dataclass(slots=True)
class Schedule(Iterator[Job | Backoff]):
    """An iterator over the jobs to run, for the engine; `finish` takes the outcome of each."""

    planned: list[Planned]
    status: Status
    locks: OutputLocks
    retry: int
    fail_fast: bool
    watcher: Watcher
    ended: list[Ended] = field(default_factory=list)
    _waiting: deque[_Turn] = field(default_factory=deque)
    _running: dict[int, _Turn] = field(default_factory=dict)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._waiting.extend(_Turn(planned) for planned in self.planned)

    def __next__(self) -> Job | Backoff:
        """Return a job, with its output locked, or how long to wait for one."""
        while not self._stopped and (self._waiting or self._running):
            turn = self._next_turn()
            if isinstance(turn, Backoff):
                return turn
            job = self._start(turn)
            if job is not None:
                return job
        raise StopIteration

    def _next_turn(self) -> _Turn | Backoff:
        """Return the first job whose pause is over and whose output can be locked."""
        now, pause = time.monotonic(), LONGEST_PAUSE_S
        for turn in list(self._waiting):
            if turn.earliest > now:
                pause = min(pause, turn.earliest - now)
            elif turn.locked or self.locks.take(self._identity(turn)):
                turn.locked = True
                self._waiting.remove(turn)
                return turn
            else:
                if not turn.told:
                    log.warning("another batch is rendering %s; waiting for it", turn.planned.job.output)
                    turn.told = True
                pause = min(pause, POLL_S)
        return Backoff(pause)

    def _start(self, turn: _Turn) -> Job | None:
        """Record that a job starts, and return it; None if it need not run any more."""
        job = turn.planned.job
        self.status.refresh()
        record = self.status.of(job.output)
        if turn.attempts == 0 and record is not None and record != turn.planned.record:
            ended = self._by_another(turn, record)
            if ended is not None:
                self._end(turn, ended)
                return None
        turn.attempts += 1
        folder = job.output.parent.parent if is_pattern(job.output) else job.output.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._failed(turn, failure(error))
            return None
        self._say(turn, "started")
        self._running[job.number] = turn
        self.watcher.started(job, turn.attempts)
        return replace(job, config=replace(job.config, overwrite=may_replace(job, record)))

    def _by_another(self, turn: _Turn, record: Record) -> Ended | None:
        """Return the outcome of this job in another batch since it was planned, which may be minutes ago."""
        planned = turn.planned
        if record.key != planned.key.value:
            return None
        if record.state == "failed":
            return Ended(job=planned.job, state="failed", attempts=0, error=record.error)
        if reason_to_run(planned.job, planned.key, record) is None:
            return Ended(job=planned.job, state="kept", attempts=0, result=record.result)
        return None

    def finish(self, job: Job, outcome: Outcome[Rendered]) -> None:
        """Process the outcome of a job. Raises OutputError if the disk is full, because then no job can be rendered."""
        turn = self._running.pop(job.number)
        if isinstance(outcome, Done):
            rendered = outcome.result
            if not turn.planned.key.after_the_job().value:
                log.warning("an input of %s changed in the meantime; the next batch renders it again", job.output)
            found = rendered.fingerprint or output_fingerprint(job.output)
            written = {} if found is None else {"size": found.size, "mtime_ns": found.mtime_ns}
            self._say(turn, "done", result=dict(rendered.result), seconds=round(outcome.seconds, 3), **written)
            ended = Ended(
                job=turn.planned.job,
                state="done",
                attempts=turn.attempts,
                seconds=outcome.seconds,
                result=rendered.result,
            )
            self._end(turn, ended)
            return
        if isinstance(outcome, WorkerCrashed | TimedOut):
            remove_stale_output(job.output)
        if isinstance(outcome, WorkerCrashed) and not turn.crashes:
            # The cause may have been the machine, or the job before.
            turn.crashes += 1
            self._say(turn, "interrupted", error={"message": outcome.message})
            self._again(turn, outcome.message, pause=0.0)
            return
        self._failed(turn, outcome)

    def abandon(self) -> None:
        """Record running jobs as interrupted, and release all locks."""
        for turn in self._running.values():
            # Left by a worker that had no time to clean up.
            remove_stale_output(turn.planned.job.output)
        with contextlib.suppress(OutputError):
            for turn in self._running.values():
                self._say(turn, "interrupted")
        self.locks.release_all()

    @property
    def not_started(self) -> list[Planned]:
        """Jobs that had not started when the batch stopped at a failure."""
        return [turn.planned for turn in self._waiting]

    def _failed(self, turn: _Turn, outcome: Failed) -> None:
        turn.failures += 1
        self._say(turn, "failed", error=outcome.to_json())
        outcome.raise_if_disk_full()
        if turn.failures <= self.retry:
            self._again(turn, outcome.message, pause=min(LONGEST_PAUSE_S, 2.0 ** (turn.failures - 1)))
            return
        ended = Ended(
            job=turn.planned.job,
            state="failed",
            attempts=turn.attempts,
            seconds=outcome.seconds,
            error=outcome.to_json(),
        )
        self._end(turn, ended)

    def _again(self, turn: _Turn, message: str, pause: float) -> None:
        turn.earliest = time.monotonic() + pause
        self._waiting.append(turn)
        self.watcher.failed_once(turn.planned.job, message)

    def _end(self, turn: _Turn, ended: Ended) -> None:
        self.ended.append(ended)
        self.locks.release(self._identity(turn))
        if ended.state == "failed" and self.fail_fast:
            self._stopped = True
        self.watcher.ended(ended)

    def _say(self, turn: _Turn, state: Literal["started", "done", "failed", "interrupted"], **more: Any) -> None:
        key = turn.planned.key if state != "done" else turn.planned.key.after_the_job()
        self.status.add(turn.planned.job.output, state, key=key.value, parts=key.parts, attempt=turn.attempts, **more)

    def _identity(self, turn: _Turn) -> str:
        return self.status.identity(turn.planned.job.output)
