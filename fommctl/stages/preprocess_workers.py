"""Worker processes that make clips: one that dies takes only its own clip with it."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from fommctl.errors import FULL_DISK, FommctlError, OutputError
from fommctl.stages.preprocess_clip import ClipJob, Made, make_clip


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a clip could not be made."""

    message: str
    disk_full: bool = False
    """Then no other clip can be made either."""


Outcome = Made | Failure


def attempt(job: ClipJob) -> Outcome:
    """Make the clip; whatever is raised becomes a failure of this clip."""
    try:
        return make_clip(job)
    except FommctlError as error:
        cause = error.__cause__
        full = isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in FULL_DISK
        return Failure(error.message, full)
    except OSError as error:
        return Failure(f"{error.strerror or error}".lower(), error.errno in FULL_DISK)
    except Exception as error:
        # A data set's own frames may raise anything.
        return Failure(f"{type(error).__name__}: {str(error)[:300]}".rstrip(": "))


def make_all(jobs: Iterable[ClipJob], workers: int) -> Generator[tuple[ClipJob, Outcome], None, None]:
    """Make every clip, in `workers` processes; results come in the order in which they are ready.

    A job that cannot be handed to another process (frames made by a lambda) is done in this one; with 0 workers all
    are. Close the iterator to stop early: the processes are ended then.
    """
    if workers == 0:
        for job in jobs:
            yield job, attempt(job)
        return
    with closing(_Workers(workers)) as pool:
        yield from pool.run(deque(jobs))


class _Worker:
    """One process and the clip that it is at."""

    def __init__(self) -> None:
        # A fresh interpreter: forks of a process with threads (of torch, of ffmpeg) may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: ClipJob | None = None
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: ClipJob, packed: bytes) -> None:
        self.job = job
        try:
            self.connection.send_bytes(packed)
        except OSError:
            # It died between two clips: `outcome` tells.
            return

    def outcome(self) -> Outcome:
        """What became of its clip, once the connection is ready."""
        try:
            return cast(Outcome, pickle.loads(self.connection.recv_bytes()))
        except (EOFError, OSError):
            self.process.join()
            return Failure(f"the worker process ended: {_reason(self.process.exitcode)}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


class _Workers:
    """As many processes as wanted; a dead one is replaced when there is more to do."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []

    def run(self, jobs: deque[ClipJob]) -> Iterator[tuple[ClipJob, Outcome]]:
        while jobs or any(worker.job for worker in self._workers):
            yield from self._distribute(jobs)
            busy = {worker.connection: worker for worker in self._workers if worker.job}
            for connection in wait(list(busy)) if busy else ():
                worker = busy[cast(Connection, connection)]
                job, outcome = worker.job, worker.outcome()
                worker.job = None
                if not worker.process.is_alive():
                    worker.stop()
                    self._workers.remove(worker)
                assert job is not None
                yield job, outcome

    def _distribute(self, jobs: deque[ClipJob]) -> Iterator[tuple[ClipJob, Outcome]]:
        """Give every idle worker a clip; clips that stay here are made at once."""
        while jobs:
            idle = next((worker for worker in self._workers if worker.job is None), None)
            if idle is None and len(self._workers) == self._count:
                return
            job = jobs.popleft()
            packed = _packed(job)
            if packed is None:
                yield job, attempt(job)
                continue
            if idle is None:
                idle = _Worker()
                self._workers.append(idle)
            idle.give(job, packed)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()


def _packed(job: ClipJob) -> bytes | None:
    try:
        return pickle.dumps(job)
    except Exception:
        # pickle raises PicklingError, AttributeError, TypeError and what objects raise themselves.
        return None


def _reason(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"{name} (memory may have run out)" if name == "SIGKILL" else name
    return f"exit code {exitcode}"


def _serve(connection: Connection) -> None:
    """What a worker does: clips, until the other end is closed, as it is when the main process dies."""
    # Ctrl-C reaches every process of the terminal; the main one decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # stdout belongs to the result of the command.
    sys.stdout = sys.stderr
    while True:
        try:
            packed = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            outcome = attempt(pickle.loads(packed))
        except Exception as error:
            outcome = Failure(f"the clip cannot be handed to a worker: {error}")
        try:
            connection.send_bytes(pickle.dumps(outcome))
        except OSError:
            return
