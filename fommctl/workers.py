"""Running jobs in worker processes, one at a time in each, with one kind of outcome for all commands.

A process that dies costs only its own job. In concurrent.futures, the death of one process ends all jobs, and children
survive a parent that is killed.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NoReturn, TypeVar

from fommctl import signals
from fommctl.errors import (
    FULL_DISK,
    FommctlError,
    InputError,
    InterruptedRunError,
    OutputError,
    out_of_memory,
    unforeseen,
)
from fommctl.machine import usable_cores

log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int | None], None]
"""report(done, total): progress of a job, with total None if it is unknown. In a worker process it raises SystemExit
once the parent has ended or given up."""
Work = Callable[[Job, Progress], Result]
"""work(job, report) -> result. An exception is the failure of that job."""
PATIENCE = 10
"""Seconds that a process has to clean up."""
CONTEXT = multiprocessing.get_context("spawn")
"""Spawn, not fork: a forked child would share the locks of PyAV's and torch's threads, and the ends of other pipes."""
GO_ON = "Free some space; the same command goes on where this stopped."


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """A job that returned a result."""

    result: Result
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A job that returned no result."""

    message: str
    hint: str | None = None
    exit_code: int = InputError.exit_code
    """Exit code of a command with only this job."""
    seconds: float = 0.0
    disk_full: bool = False
    """Whether the disk is full, so that all other jobs would fail too and the run has to stop."""

    def raise_if_disk_full(self) -> None:
        """Raise OutputError if the disk is full."""
        if self.disk_full:
            raise OutputError(self.message, GO_ON)

    def to_error(self) -> FommctlError:
        """Return the failure as an error with the same message, hint and exit code."""
        error = FommctlError(self.message, self.hint)
        error.exit_code = self.exit_code
        return error

    def to_json(self) -> dict[str, Any]:
        """Return message, hint and exit code."""
        return {"message": self.message, "hint": self.hint, "exit_code": self.exit_code}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerCrashed(Failed):
    """A job whose process ended, or that could not be sent to a process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedOut(Failed):
    """A job that exceeded its time limit; its process was stopped."""


Outcome = Done[Result] | Failed
"""Outcome of a job: done, failed, crashed or timed out."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """An entry instead of a job: wait this many seconds, or until a running job ends, before asking for the next."""

    seconds: float


def attempt(work: Work[Job, Result], job: Job, report: Progress) -> Outcome[Result]:
    """Do a job and return its outcome. Any exception becomes a failure, except interrupts of the whole run."""
    began = time.monotonic()
    try:
        return Done(work(job, report), time.monotonic() - began)
    except (InterruptedRunError, *ENDING):
        raise
    except BaseException as error:  # a plugin may end the process, or a library in Rust panic
        log.debug("a job failed", exc_info=True)
        return failure(error, time.monotonic() - began)


class Leave(SystemExit):
    """Raised in a worker process to end it at the request of its parent."""


ENDING = (KeyboardInterrupt, GeneratorExit, Leave)
"""Exceptions that end the whole run; they are never failures of the code in which they arise."""


def failure(error: BaseException, seconds: float = 0.0) -> Failed:
    """Convert an error that a job raised to its failure."""
    error = out_of_memory(error) or error
    causes = (error, error.__cause__)
    full = any(isinstance(each, OSError) and each.errno in FULL_DISK for each in causes)
    if isinstance(error, FommctlError):
        message, hint, code = error.message, error.hint, error.exit_code
    elif isinstance(error, OSError):
        name = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, str) else ""
        message, hint, code = f"{(error.strerror or str(error)).lower()}{name}", None, OutputError.exit_code
    else:
        # A plugin or a library may raise anything.
        message, hint, code = unforeseen(error), None, 1
    return Failed(message=message, hint=hint, exit_code=code, seconds=seconds, disk_full=full)


def run_jobs(
    jobs: Iterable[Job | Backoff],
    make_worker: Callable[..., Work[Job, Result]],
    arguments: tuple[Any, ...] | Callable[[int], tuple[Any, ...]] = (),
    *,
    workers: int,
    timeout: float | None = None,
    report: Callable[[Job, int, int | None], None] = lambda job, done, total: None,
    begin: Callable[[Job], None] = lambda job: None,
) -> Generator[tuple[Job, Outcome[Result]], None, None]:
    """Yield each job with its outcome, in order of completion; close the generator to stop early.

    jobs: the next one is taken when a worker is free.
    make_worker(*arguments): makes the function that does the jobs, once in each process. It must be importable by name;
    arguments and results are pickled. If it raises, every job fails. arguments(number): arguments for the worker with
    this number, from 0; a replacement has the number of the worker it replaces. A job that cannot be pickled (with a
    lambda, for example) is done in this process.
    workers: number of processes; 0: everything runs in this one.  timeout: seconds per job in a process, from its
    beginning there.  report(job, done, total): progress.  begin: called before a job starts.
    """
    chosen = arguments if callable(arguments) else lambda number: arguments
    own: list[Work[Job, Result]] = []

    def done_here(job: Job) -> tuple[Job, Outcome[Result]]:
        if not own:
            own.append(_made(make_worker, chosen(0)))
        return job, attempt(own[0], job, lambda done, total: report(job, done, total))

    waiting = iter(jobs)
    more = True
    pool: _Pool[Job] = _Pool(make_worker, chosen, workers, timeout)
    try:
        while more or pool.busy:
            pause: float | None = None
            while more and pause is None and (not workers or pool.has_room):
                job = next(waiting, None)
                if job is None:
                    more = False
                elif isinstance(job, Backoff):
                    pause = job.seconds
                else:
                    begin(job)
                    packed = _packed(job) if workers else None
                    if packed is None:
                        yield done_here(job)
                    else:
                        pool.give(job, packed)
            if pool.busy:
                yield from pool.receive(report, pause)
            elif pause is not None:
                time.sleep(pause)
    finally:
        pool.end()


def _made(make_worker: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]) -> Work[Any, Any]:
    try:
        return make_worker(*arguments)
    except Exception as error:
        reason = error

        def fail(job: object, report: Progress) -> Any:
            raise reason

        return fail


class _Pool(Generic[Job]):
    """The numbered worker processes; one that died is replaced when it is needed."""

    def __init__(
        self,
        make_worker: Callable[..., Work[Job, Any]],
        arguments: Callable[[int], tuple[Any, ...]],
        workers: int,
        timeout: float | None,
    ) -> None:
        self._make_worker = make_worker
        self._arguments = arguments
        self._workers = workers
        self._timeout = timeout
        self._children: dict[int, _Child[Job]] = {}

    @property
    def busy(self) -> list[_Child[Job]]:
        return [child for child in self._children.values() if child.job is not None]

    @property
    def has_room(self) -> bool:
        return len(self.busy) < self._workers

    def give(self, job: Job, packed: bytes) -> None:
        """Send a job to an idle process, or to a new one."""
        child = next((child for child in self._children.values() if child.job is None), None)
        if child is None:
            number = next(number for number in range(self._workers) if number not in self._children)
            child = _Child(self._make_worker, usable_cores() // self._workers, self._arguments(number))
            self._children[number] = child
        child.give(job, packed)

    def receive(
        self, report: Callable[[Job, int, int | None], None], pause: float | None
    ) -> Generator[tuple[Job, Any], None, None]:
        """Wait for messages of busy processes, at most `pause` seconds, and yield the jobs that have ended; stop
        processes that exceed the time limit."""
        busy = self.busy
        moments = [child.deadline - time.monotonic() for child in busy if child.deadline is not None]
        ready = wait([child.pipe for child in busy], min([*moments, *([] if pause is None else [pause])], default=None))
        for child in busy:
            job = child.job
            assert job is not None
            if child.pipe in ready:
                kind, *content = child.receive()
                if kind == "begun":
                    child.deadline = None if self._timeout is None else time.monotonic() + self._timeout
                    continue
                if kind == "progress":
                    report(job, *content)
                    continue
                child.job = None
                if kind == "crashed":
                    self._drop(child)
                yield job, content[0]
            elif child.deadline is not None and child.deadline <= time.monotonic():
                self._drop(child)
                yield job, TimedOut(message=f"it took longer than {self._timeout:g} s")

    def _drop(self, child: _Child[Job]) -> None:
        self._children = {number: each for number, each in self._children.items() if each is not child}
        child.stop()
        child.end()

    def end(self) -> None:
        for child in self._children.values():
            child.stop()
        for child in self._children.values():
            child.end()


class _Child(Generic[Job]):
    """The parent's view of one worker process, and the job that it is doing."""

    def __init__(self, make_worker: Callable[..., Work[Job, Any]], threads: int, arguments: tuple[Any, ...]) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.job: Job | None = None
        self.deadline: float | None = None
        self.process: BaseProcess = CONTEXT.Process(
            target=serve, args=(theirs, make_worker, threads, arguments), daemon=True
        )
        # Starting the first child would start the tracker, which unblocks interrupts: start it before.
        resource_tracker.ensure_running()
        # Interrupted before it ignores SIGINT, a child would print a traceback.
        with signals.held_back({signal.SIGINT}):
            self.process.start()
        theirs.close()

    def give(self, job: Job, packed: bytes) -> None:
        self.job, self.deadline = job, None
        # If it died between two jobs, `receive` notices.
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(packed)

    def receive(self) -> tuple[Any, ...]:
        """Read a message from the ready pipe: ("begun",), ("progress", done, total), ("ended", outcome) or ("crashed",
        outcome)."""
        try:
            message: tuple[Any, ...] = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(PATIENCE)
            return "crashed", WorkerCrashed(message=_why(self.process.exitcode))
        return message

    def stop(self) -> None:
        """Ask the process to abandon its job; when idle, it ends because its pipe is closed."""
        self.pipe.close()
        # On Windows this would kill it before it can clean up; there it stops when it next reports progress.
        if self.job is not None and os.name == "posix":
            self.process.terminate()

    def end(self) -> None:
        """Wait for the process to end, and kill it if it does not."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _packed(job: object) -> bytes | None:
    try:
        return pickle.dumps(job)
    except Exception:
        # pickle raises PicklingError, AttributeError, TypeError and what objects raise themselves.
        return None


def _why(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    name = signals.name_of(-code)
    return f"its process was killed by {name}{' (memory may have run out)' if name == 'SIGKILL' else ''}"


def serve(
    pipe: Connection, make_worker: Callable[..., Callable[..., Any]], threads: int, arguments: tuple[Any, ...]
) -> None:
    """Run a worker process: do the jobs from the pipe until it is closed, or until the parent ends."""
    # Interrupts are handled by the parent, which closes the pipe, so that the current job can clean up.
    signals.leave_to_parent(_leave)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # stdout is for the result of the command only.
    sys.stdout = sys.stderr
    logging.getLogger("fommctl").addHandler(logging.NullHandler())
    work = _made(make_worker, arguments)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        # OMP_NUM_THREADS may have asked for fewer.
        torch.set_num_threads(max(1, min(threads, torch.get_num_threads())))

    def report(done: int, total: int | None) -> None:
        try:
            pipe.send(("progress", done, total))
        except OSError:
            # SIGTERM follows: from the parent, or from `_leave_with_parent`.
            _leave()

    with contextlib.suppress(EOFError, OSError):
        while True:
            packed = pipe.recv_bytes()
            try:
                job = pickle.loads(packed)
            except Exception as error:
                reason = f"the job cannot be handed to a process: {error}"
                pipe.send(("ended", WorkerCrashed(message=reason)))
                continue
            pipe.send(("begun",))
            outcome = attempt(work, job, report)
            try:
                pipe.send(("ended", outcome))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send(("ended", WorkerCrashed(message=f"its result cannot be handed back: {error}")))


def _leave(*signal_and_frame: object) -> NoReturn:
    """Leave through all `with` blocks, and ignore SIGTERM meanwhile; handles SIGTERM itself."""
    signals.ignore_sigterm()
    raise Leave(1) from None


def _leave_with_parent() -> None:
    """End this process when its parent is killed, because its job is then of no use."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    if hasattr(signal, "pthread_kill"):
        signals.send_to_main_thread(signal.SIGTERM)
        time.sleep(PATIENCE)
    os._exit(1)
