"""Jobs in processes of their own, one at a time in each; a process that dies costs its job and no other.

concurrent.futures will not do: there the death of one process ends all jobs, and where the parent is killed the
children stay.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")
Tell = Callable[[int, int | None], None]
Work = Callable[[Job, Tell], Done]
"""work(job, tell) -> result; tell(done, total) raises SystemExit in a child whose parent is gone or has given up."""
_PATIENCE = 10
"""Seconds that a child has to clean up."""


@dataclass(frozen=True, slots=True)
class Died:
    """The result of a job whose process ended, or could not even be handed it."""

    reason: str


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Iterable[Job],
    prepare: Callable[..., Work[Job, Done]],
    arguments: tuple[Any, ...] = (),
    *,
    workers: int,
    tell: Callable[[Job, int, int | None], None] = lambda job, done, total: None,
    begin: Callable[[Job], None] = lambda job: None,
) -> Generator[tuple[Job, Done | Died], None, None]:
    """Each job with its result, as they come; close the generator to stop early.

    prepare(*arguments): makes the function that does the jobs, once in each process; importable by name, as the
    arguments and results can be pickled. A job that cannot be (it holds a lambda) is done in this process.
    workers: processes; with 0 everything runs in this one.  tell(job, done, total): progress.  begin: called before a
    job starts.
    """
    own: list[Work[Job, Done]] = []

    def done_here(job: Job) -> tuple[Job, Done]:
        if not own:
            own.append(prepare(*arguments))
        return job, own[0](job, lambda done, total: tell(job, done, total))

    waiting = deque(jobs)
    children: list[_Child[Job]] = []
    try:
        while waiting or any(child.job is not None for child in children):
            while waiting:
                idle = next((child for child in children if child.job is None), None)
                if workers and idle is None and len(children) == workers:
                    break
                job = waiting.popleft()
                begin(job)
                packed = _packed(job) if workers else None
                if packed is None:
                    yield done_here(job)
                    continue
                if idle is None:
                    idle = _Child(prepare, processors() // workers, arguments)
                    children.append(idle)
                idle.give(job, packed)
            yield from _heard(children, tell)
    finally:
        for child in children:
            child.pipe.close()
        for child in children:
            child.end()


def _heard(
    children: list[_Child[Job]], tell: Callable[[Job, int, int | None], None]
) -> Generator[tuple[Job, Any], None, None]:
    """Wait for what the busy children say; those that died are none any more."""
    busy = [child for child in children if child.job is not None]
    ready = wait([child.pipe for child in busy]) if busy else []
    for child in (child for child in busy if child.pipe in ready):
        job, (kind, *content) = child.job, child.said()
        assert job is not None
        if kind == "progress":
            tell(job, *content)
            continue
        child.job = None
        if kind == "died":
            children.remove(child)
            child.end()
        yield job, content[0]


class _Child(Generic[Job]):
    """One process, and the job that it is at."""

    def __init__(self, prepare: Callable[..., Work[Job, Any]], threads: int, arguments: tuple[Any, ...]) -> None:
        # spawn: a forked child would share the locks of PyAV's and torch's threads, and the ends of the other pipes.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, prepare, threads, arguments), daemon=True
        )
        with _interrupts_held_back():
            self.process.start()
        theirs.close()

    def give(self, job: Job, packed: bytes) -> None:
        self.job = job
        # Where it died between two jobs, `said` tells.
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(packed)

    def said(self) -> tuple[Any, ...]:
        """("progress", done, total), ("done", result) or ("died", Died), once the pipe is ready."""
        try:
            message: tuple[Any, ...] = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_PATIENCE)
            return "died", Died(_why(self.process.exitcode))
        return message

    def end(self) -> None:
        """Without its pipe, a child stops at the next progress it has to tell."""
        self.pipe.close()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _interrupts_held_back() -> Generator[None, None, None]:
    """A child that is started meanwhile never has one: it would show a traceback as long as it does not ignore them."""
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


def _serve(pipe: Connection, prepare: Callable[..., Work[Any, Any]], threads: int, arguments: tuple[Any, ...]) -> None:
    """The life of a child: jobs come through the pipe until it is closed."""
    # Ctrl-C goes to the whole group; the parent closes the pipe, and the job in hand cleans up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # stdout belongs to the result of the command.
    sys.stdout = sys.stderr
    logging.getLogger("fommctl").addHandler(logging.NullHandler())
    work = prepare(*arguments)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(max(1, threads))

    def tell(done: int, total: int | None) -> None:
        try:
            pipe.send(("progress", done, total))
        except OSError:
            sys.exit(1)

    with contextlib.suppress(EOFError, OSError):
        while True:
            packed = pipe.recv_bytes()
            try:
                job = pickle.loads(packed)
            except Exception as error:
                pipe.send(("done", Died(f"it cannot be handed to a process: {error}")))
                continue
            pipe.send(("done", work(job, tell)))
