"""Where the jobs of a batch are rendered: on this machine, or wherever else an engine takes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from fommctl.batch.jobs import Job
from fommctl.batch.worker import Outcome, prepare
from fommctl.workers import Died, Wait, run_jobs

Result = Outcome | Died
"""Done or Failed as the worker told it; Died where the worker ended without a word, TimedOut (a Died) where it was
stopped because the job took too long."""
Tell = Callable[[Job, int, int | None], None]
"""tell(job, frames done, frames in all or None)."""


class BatchEngine(Protocol):
    """Renders jobs on workers that keep their models from job to job."""

    def run(
        self,
        jobs: Iterator[Job | Wait],
        *,
        workers: int,
        devices: tuple[str, ...],
        timeout: float | None,
        tell: Tell,
    ) -> Generator[tuple[Job, Result], None, None]:
        """Each job with its result, as they come; close the generator to stop early, then nothing is half-written.

        jobs: a job that is taken from here counts as started, so one is taken only when a worker is free for it. A
        Wait says that there is none for so many seconds, or until a job ends: a job that failed may come again. The
        iterator is at its end when no job is left; it is never asked by two threads at once.
        devices: shared out among the workers, for jobs whose choice of a device is `auto`.
        timeout: seconds for a job; one that takes longer is stopped, and its worker is replaced.
        """
        ...


class LocalEngine:
    """Processes on this machine; with no workers the jobs are done in this one."""

    def run(
        self,
        jobs: Iterator[Job | Wait],
        *,
        workers: int,
        devices: tuple[str, ...],
        timeout: float | None,
        tell: Tell,
    ) -> Generator[tuple[Job, Result], None, None]:
        """As the protocol says; a job's timeout does not count without workers."""
        return run_jobs(
            jobs,
            prepare,
            lambda number: (devices[number % len(devices)],),
            workers=workers,
            timeout=timeout,
            tell=tell,
        )
