"""Jobs in processes of their own, one at a time in each; a process that dies costs its job and no other.

concurrent.futures will not do: there the death of one process ends all jobs, and where the parent is killed the
children stay.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")
Tell = Callable[[int, int | None], None]
Work = Callable[[Job, Tell], Done]
"""work(job, tell) -> result, in the child; tell(done, total) raises SystemExit where the parent is gone."""
_PATIENCE = 10
"""Seconds that a child has to clean up."""


@dataclass(frozen=True, slots=True)
class Died:
    """The result of a job whose process ended."""

    reason: str


@dataclass(slots=True)
class _Child(Generic[Job]):
    process: BaseProcess
    pipe: Connection
    job: Job


def run_jobs(
    jobs: Sequence[Job],
    prepare: Callable[..., Work[Job, Done]],
    arguments: tuple[Any, ...],
    *,
    workers: int,
    tell: Callable[[Job, int, int | None], None],
    begin: Callable[[Job], None],
) -> Iterator[tuple[Job, Done | Died]]:
    """Each job with its result, as they come.

    prepare(*arguments): makes the function that does the jobs, once in each process; importable by name, as the
    arguments and results can be pickled.  tell(job, done, total): progress.  begin: called before a job starts.
    With one worker everything runs in this process.
    """
    if workers == 1:
        work = prepare(*arguments)
        for job in jobs:
            begin(job)
            yield job, work(job, lambda done, total, job=job: tell(job, done, total))  # type: ignore[misc]
        return
    waiting = list(reversed(jobs))
    children: list[_Child[Job]] = []
    try:
        while waiting or children:
            while waiting and len(children) < workers:
                begin(waiting[-1])
                children.append(_started(waiting.pop(), prepare, (os.cpu_count() or 1) // workers, arguments))
            for child in [child for child in children if child.pipe in wait([child.pipe for child in children])]:
                result = _heard(child, tell)
                if result is None:
                    continue
                yield child.job, result
                if waiting and not isinstance(result, Died):
                    child.job = waiting.pop()
                    begin(child.job)
                    child.pipe.send(child.job)
                else:
                    children.remove(child)
                    _ended(child)
    finally:
        for child in children:
            child.pipe.close()
        for child in children:
            _ended(child)


def _started(
    job: Job, prepare: Callable[..., Work[Job, Done]], threads: int, arguments: tuple[Any, ...]
) -> _Child[Job]:
    # spawn: a forked child would share the locks of PyAV's and torch's threads, and the ends of the other pipes.
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, prepare, threads, arguments), daemon=True)
    process.start()
    other.close()
    pipe.send(job)
    return _Child(process, pipe, job)


def _heard(child: _Child[Job], tell: Callable[[Job, int, int | None], None]) -> Any:
    """The result of its job, if that is what the child says."""
    try:
        kind, *content = child.pipe.recv()
    except (EOFError, OSError):
        child.process.join(_PATIENCE)
        return Died(_why(child.process.exitcode))
    if kind == "done":
        return content[0]
    tell(child.job, *content)
    return None


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _ended(child: _Child[Any]) -> None:
    child.pipe.close()
    child.process.join(_PATIENCE)
    if child.process.is_alive():
        child.process.kill()
        child.process.join()


def _serve(pipe: Connection, prepare: Callable[..., Work[Any, Any]], threads: int, arguments: tuple[Any, ...]) -> None:
    """The life of a child: jobs come through the pipe until it is closed."""
    # Ctrl-C goes to the whole group; the parent closes the pipe, and the job in hand cleans up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            result = work(pipe.recv(), tell)
            pipe.send(("done", result))
