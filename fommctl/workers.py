"""Jobs in processes of their own, one at a time in each; a process that dies costs its job and no other.

concurrent.futures will not do: there the death of one process ends all jobs, and where the parent is killed the
children stay.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from fommctl.machine import usable_cores
from fommctl.worker_life import PATIENCE, serve

Job = TypeVar("Job")
Done = TypeVar("Done")
Tell = Callable[[int, int | None], None]
Work = Callable[[Job, Tell], Done]
"""work(job, tell) -> result; tell(done, total) raises SystemExit in a child whose parent is gone or has given up."""


@dataclass(frozen=True, slots=True)
class Died:
    """The result of a job whose process ended, or could not even be handed it."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimedOut(Died):
    """The result of a job that took longer than it may; its process was stopped."""


@dataclass(frozen=True, slots=True)
class Wait:
    """In the place of a job: there is none for so many seconds, or until one of those at work ends."""

    seconds: float


def run_jobs(
    jobs: Iterable[Job | Wait],
    prepare: Callable[..., Work[Job, Done]],
    arguments: tuple[Any, ...] | Callable[[int], tuple[Any, ...]] = (),
    *,
    workers: int,
    timeout: float | None = None,
    tell: Callable[[Job, int, int | None], None] = lambda job, done, total: None,
    begin: Callable[[Job], None] = lambda job: None,
) -> Generator[tuple[Job, Done | Died], None, None]:
    """Each job with its result, as they come; close the generator to stop early.

    jobs: the next one is taken when a worker is free for it.
    prepare(*arguments): makes the function that does the jobs, once in each process; importable by name, as the
    arguments and results can be pickled. arguments(number): of the worker of this number, from 0; one that takes the
    place of another has its number. A job that cannot be pickled (it holds a lambda) is done in this process.
    workers: processes; with 0 everything runs in this one.  timeout: seconds for a job in a process, from when it
    begins there.  tell(job, done, total): progress.  begin: called before a job starts.
    """
    chosen = arguments if callable(arguments) else lambda number: arguments
    own: list[Work[Job, Done]] = []

    def done_here(job: Job) -> tuple[Job, Done]:
        if not own:
            own.append(prepare(*chosen(0)))
        return job, own[0](job, lambda done, total: tell(job, done, total))

    waiting = iter(jobs)
    more = True
    crew: _Crew[Job] = _Crew(prepare, chosen, workers, timeout)
    try:
        while more or crew.busy:
            pause: float | None = None
            while more and pause is None and (not workers or crew.has_room):
                job = next(waiting, None)
                if job is None:
                    more = False
                elif isinstance(job, Wait):
                    pause = job.seconds
                else:
                    begin(job)
                    packed = _packed(job) if workers else None
                    if packed is None:
                        yield done_here(job)
                    else:
                        crew.give(job, packed)
            if crew.busy:
                yield from crew.heard(tell, pause)
            elif pause is not None:
                time.sleep(pause)
    finally:
        crew.end()


class _Crew(Generic[Job]):
    """The processes, each with a number; one that died is replaced when its place is needed."""

    def __init__(
        self,
        prepare: Callable[..., Work[Job, Any]],
        arguments: Callable[[int], tuple[Any, ...]],
        workers: int,
        timeout: float | None,
    ) -> None:
        self._prepare = prepare
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
        """To a process that waits, else to a new one."""
        child = next((child for child in self._children.values() if child.job is None), None)
        if child is None:
            number = next(number for number in range(self._workers) if number not in self._children)
            child = _Child(self._prepare, usable_cores() // self._workers, self._arguments(number))
            self._children[number] = child
        child.give(job, packed)

    def heard(
        self, tell: Callable[[Job, int, int | None], None], pause: float | None
    ) -> Generator[tuple[Job, Any], None, None]:
        """Wait for what the busy processes say, at most `pause` seconds; stop those whose time is over."""
        busy = self.busy
        moments = [child.deadline - time.monotonic() for child in busy if child.deadline is not None]
        ready = wait([child.pipe for child in busy], min([*moments, *([] if pause is None else [pause])], default=None))
        for child in busy:
            job = child.job
            assert job is not None
            if child.pipe in ready:
                kind, *content = child.said()
                if kind == "begun":
                    child.deadline = None if self._timeout is None else time.monotonic() + self._timeout
                    continue
                if kind == "progress":
                    tell(job, *content)
                    continue
                child.job = None
                if kind == "died":
                    self._drop(child)
                yield job, content[0]
            elif child.deadline is not None and child.deadline <= time.monotonic():
                self._drop(child)
                yield job, TimedOut(f"it took longer than {self._timeout:g} s")

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
    """One process, and the job that it is at."""

    def __init__(self, prepare: Callable[..., Work[Job, Any]], threads: int, arguments: tuple[Any, ...]) -> None:
        # spawn: a forked child would share the locks of PyAV's and torch's threads, and the ends of the other pipes.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        self.deadline: float | None = None
        self.process: BaseProcess = context.Process(
            target=serve, args=(theirs, prepare, threads, arguments), daemon=True
        )
        # It is started with the first child, and lets interrupts through again.
        resource_tracker.ensure_running()
        with _interrupts_held_back():
            self.process.start()
        theirs.close()

    def give(self, job: Job, packed: bytes) -> None:
        self.job, self.deadline = job, None
        # Where it died between two jobs, `said` tells.
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(packed)

    def said(self) -> tuple[Any, ...]:
        """("begun",), ("progress", done, total), ("done", result) or ("died", Died), once the pipe is ready."""
        try:
            message: tuple[Any, ...] = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(PATIENCE)
            return "died", Died(_why(self.process.exitcode))
        if message[0] == "unreadable":
            return "done", Died(message[1])
        return message

    def stop(self) -> None:
        """Ask it to abandon its job; without its pipe it ends when it has none."""
        self.pipe.close()
        # Elsewhere this would kill it before it can clean up: there it stops at the next progress it has to tell.
        if self.job is not None and os.name == "posix":
            self.process.terminate()

    def end(self) -> None:
        """Wait for its end; one that does not come is brought about."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _interrupts_held_back() -> Generator[None, None, None]:
    """A child that is started meanwhile has none: it would show a traceback as long as it does not ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packed(job: object) -> bytes | None:
    try:
        return pickle.dumps(job)
    except Exception:
        # pickle raises PicklingError, AttributeError, TypeError and what objects raise themselves.
        return None


def _why(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was killed by {name}{' (memory may have run out)' if name == 'SIGKILL' else ''}"
