"""The order of jobs while they run: claims, retries, and the word of each in the status file."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from fommctl.batch.claims import Claims
from fommctl.batch.engines import Result
from fommctl.batch.jobs import Job
from fommctl.batch.planning import Planned, may_replace, reason_to_run
from fommctl.batch.stamps import stamp_of
from fommctl.batch.status import Record, Status
from fommctl.batch.worker import Done, Failed
from fommctl.errors import InputError, OutputError
from fommctl.media.output_paths import is_pattern, remove_stale_output
from fommctl.workers import Died, TimedOut, Wait

POLL_S = 0.5
"""So often it is asked whether a claim of another batch has become free."""
LONGEST_PAUSE_S = 30.0
FULL = "Free some space; the same command goes on where this stopped."


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What became of a job."""

    job: Job
    state: Literal["done", "kept", "failed"]
    """kept: it was done before, or by another batch at the same time."""
    attempts: int
    seconds: float | None = None
    result: Mapping[str, Any] | None = None
    """AnimateResult.to_json()."""
    error: Mapping[str, Any] | None = None
    """`message`, `hint` and `exit_code`."""


class Watcher(Protocol):
    """Who shows how far a batch is."""

    def started(self, job: Job, attempt: int) -> None: ...

    def progress(self, job: Job, done: int, total: int | None) -> None: ...

    def failed_once(self, job: Job, message: str) -> None:
        """It will be tried again."""

    def ended(self, ended: Ended) -> None: ...


@dataclass(slots=True)
class _Turn:
    """A job, and what was tried so far."""

    planned: Planned
    attempts: int = 0
    failures: int = 0
    deaths: int = 0
    earliest: float = 0.0
    claimed: bool = False


@dataclass(slots=True)
class Schedule(Iterator[Job | Wait]):
    """Gives out jobs as the engine asks for them; `finish` takes what became of each."""

    planned: list[Planned]
    status: Status
    claims: Claims
    retry: int
    fail_fast: bool
    watcher: Watcher
    ended: list[Ended] = field(default_factory=list)
    _waiting: deque[_Turn] = field(default_factory=deque)
    _running: dict[int, _Turn] = field(default_factory=dict)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._waiting.extend(_Turn(planned) for planned in self.planned)

    def __next__(self) -> Job | Wait:
        """A job that is ours from now on, or how long to wait for one."""
        while not self._stopped and (self._waiting or self._running):
            turn = self._next_turn()
            if isinstance(turn, Wait):
                return turn
            job = self._start(turn)
            if job is not None:
                return job
        raise StopIteration

    def _next_turn(self) -> _Turn | Wait:
        """The first that nobody else is at and whose pause is over."""
        now, pause = time.monotonic(), LONGEST_PAUSE_S
        for turn in list(self._waiting):
            if turn.earliest > now:
                pause = min(pause, turn.earliest - now)
            elif turn.claimed or self.claims.take(self._identity(turn)):
                turn.claimed = True
                self._waiting.remove(turn)
                return turn
            else:
                pause = min(pause, POLL_S)
        return Wait(pause)

    def _start(self, turn: _Turn) -> Job | None:
        """Write that it starts; None where there is nothing to do any more."""
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
            reason = (error.strerror or str(error)).lower()
            self._fail(turn, OutputError(f"cannot make the folder {folder}: {reason}", "Choose another output."))
            return None
        self._say(turn, "started")
        self._running[job.number] = turn
        self.watcher.started(job, turn.attempts)
        return replace(job, config=replace(job.config, overwrite=may_replace(job, record)))

    def _by_another(self, turn: _Turn, record: Record) -> Ended | None:
        """What another batch has made of this job since it was planned; hashing the inputs may take minutes."""
        planned = turn.planned
        if record.key != planned.key.value:
            return None
        if record.state == "failed":
            return Ended(job=planned.job, state="failed", attempts=0, error=record.error)
        if reason_to_run(planned.job, planned.key, record) is None:
            return Ended(job=planned.job, state="kept", attempts=0, result=record.result)
        return None

    def finish(self, job: Job, result: Result) -> None:
        """Take the result of a job that was given out. Raises OutputError where the disk is full: then no job can be
        rendered."""
        turn = self._running.pop(job.number)
        if isinstance(result, Done):
            stamp = result.stamp or stamp_of(job.output)
            size = {} if stamp is None else {"size": stamp.size, "mtime_ns": stamp.mtime_ns}
            self._say(turn, "done", result=result.result, seconds=round(result.seconds, 3), **size)
            ended = Ended(
                job=turn.planned.job,
                state="done",
                attempts=turn.attempts,
                seconds=result.seconds,
                result=result.result,
            )
            self._end(turn, ended)
        elif isinstance(result, Died):
            remove_stale_output(job.output)
            if isinstance(result, TimedOut) or turn.deaths:
                self._failed(turn, Failed(message=result.reason, hint=None, exit_code=InputError.exit_code))
            else:
                # It may have been the machine's fault, or that of the job before.
                turn.deaths += 1
                self._say(turn, "interrupted", error={"message": result.reason})
                self._again(turn, result.reason, pause=0.0)
        elif result.fatal:
            self._say(turn, "failed", error=_error(result))
            raise OutputError(result.message, FULL)
        else:
            self._failed(turn, result)

    def abandon(self) -> None:
        """Say of the jobs that were at work that they were interrupted, and give all claims back."""
        for turn in self._running.values():
            # Of a worker that had no time to clean up.
            remove_stale_output(turn.planned.job.output)
        with contextlib.suppress(OutputError):
            for turn in self._running.values():
                self._say(turn, "interrupted")
        self.claims.release_all()

    @property
    def not_started(self) -> list[Planned]:
        """Those that were left when the batch stopped at a failure."""
        return [turn.planned for turn in self._waiting]

    def _failed(self, turn: _Turn, result: Failed) -> None:
        turn.failures += 1
        self._say(turn, "failed", error=_error(result))
        if turn.failures <= self.retry:
            self._again(turn, result.message, pause=min(LONGEST_PAUSE_S, 2.0 ** (turn.failures - 1)))
            return
        ended = Ended(
            job=turn.planned.job,
            state="failed",
            attempts=turn.attempts,
            seconds=result.seconds,
            error=_error(result),
        )
        self._end(turn, ended)

    def _fail(self, turn: _Turn, error: OutputError) -> None:
        self._failed(turn, Failed(message=error.message, hint=error.hint, exit_code=error.exit_code))

    def _again(self, turn: _Turn, message: str, pause: float) -> None:
        turn.earliest = time.monotonic() + pause
        self._waiting.append(turn)
        self.watcher.failed_once(turn.planned.job, message)

    def _end(self, turn: _Turn, ended: Ended) -> None:
        self.ended.append(ended)
        self.claims.release(self._identity(turn))
        if ended.state == "failed" and self.fail_fast:
            self._stopped = True
        self.watcher.ended(ended)

    def _say(self, turn: _Turn, state: Literal["started", "done", "failed", "interrupted"], **more: Any) -> None:
        key = turn.planned.key
        self.status.add(turn.planned.job.output, state, key=key.value, parts=key.parts, attempt=turn.attempts, **more)

    def _identity(self, turn: _Turn) -> str:
        return self.status.identity(turn.planned.job.output)


def _error(result: Failed) -> dict[str, Any]:
    return {"message": result.message, "hint": result.hint, "exit_code": result.exit_code}
