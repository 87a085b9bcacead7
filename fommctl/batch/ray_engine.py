"""Jobs on a Ray cluster; a long driving video can be divided among its workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from fommctl.animate.motion import is_motion_file
from fommctl.animate.run import expected_frames
from fommctl.batch.divided import Begin, DividedRun
from fommctl.batch.engines import Result, Tell
from fommctl.batch.jobs import Job, ModelChoice
from fommctl.batch.ray_connection import connected, share_out
from fommctl.batch.ray_crew import POLL_S, Crew
from fommctl.batch.ray_worker import Task
from fommctl.batch.worker import Done, Failed
from fommctl.errors import InputError
from fommctl.media.output_paths import remove_stale_output
from fommctl.media.probe import probe
from fommctl.workers import Died, TimedOut, Wait

SHORTEST_SEGMENT = 250
"""Frames; below, the start of a segment costs more than it saves. Counts where nobody says how many segments."""
_TRIES = 3
"""Of a step whose worker is lost."""


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Workers on the machines of a Ray cluster, or on this one."""

    address: str | None = None
    """See `connected`."""
    split: int | None = 1
    """Segments of every driving video; None: where no other job waits, as many as there are workers."""
    workers: int | None = None
    """None: one a GPU, else one a machine."""

    def run(
        self,
        jobs: Iterator[Job | Wait],
        *,
        workers: int,
        devices: tuple[str, ...],
        timeout: float | None,
        tell: Tell,
    ) -> Generator[tuple[Job, Result], None, None]:
        """As the protocol says, but that `workers` is not asked: a divided job keeps several of them busy.

        Raises MissingError where there is no Ray.
        """
        with connected(self.address, self.workers) as cluster:
            share = share_out(cluster, self.workers, devices)
            with closing(Crew(cluster, share, "cpu" if "cpu" in devices else "auto")) as crew:
                yield from _Run(jobs, crew, self.split, share.workers, timeout, tell).outcomes()


@dataclass(slots=True, eq=False)
class _Running:
    """A job that was taken, and the tasks that it has become."""

    job: Job
    began: float
    divided: DividedRun | None
    choice: ModelChoice
    """For the steps that follow the first."""
    ready: deque[Task] = field(default_factory=deque)
    out: set[Task] = field(default_factory=set)
    """Those that workers have."""
    losses: int = 0
    result: Result | None = None
    """What it ends with, once its other tasks have ended."""


@dataclass(slots=True)
class _Run:
    jobs: Iterator[Job | Wait]
    crew: Crew
    split: int | None
    workers: int
    timeout: float | None
    tell: Tell
    _ahead: Job | None = None
    _more: bool = True
    _pause: float = 0.0
    _running: list[_Running] = field(default_factory=list)

    def outcomes(self) -> Generator[tuple[Job, Result], None, None]:
        """Each job with its result."""
        try:
            while True:
                self._hand_out()
                if not (self._more or self._running or self._ahead):
                    return
                for task, result in self.crew.heard(self._patience(), self._told):
                    yield from self._heard(task, result)
                yield from self._late()
        finally:
            # The workers first: what they still write would come back.
            self.crew.close()
            for running in self._running:
                if running.divided is not None:
                    running.divided.close()
                remove_stale_output(running.job.output)

    def _patience(self) -> float:
        return max(0.01, min(POLL_S, self._pause - time.monotonic())) if self._pause else POLL_S

    def _hand_out(self) -> None:
        while self.crew.idle:
            waiting = next((running for running in self._running if running.ready), None)
            if waiting is None:
                job = self._take()
                if job is None:
                    return
                waiting = self._begin(job)
            task = waiting.ready.popleft()
            waiting.out.add(task)
            self.crew.give(task)

    def _take(self) -> Job | None:
        """The next job; None where there is none now."""
        job, self._ahead = self._ahead, None
        if job is None:
            job = self._next()
        if job is not None and self.split is None:
            self._ahead = self._next()
        return job

    def _next(self) -> Job | None:
        if not self._more or time.monotonic() < self._pause:
            return None
        self._pause = 0.0
        job = next(self.jobs, None)
        if isinstance(job, Wait):
            self._pause = time.monotonic() + job.seconds
            return None
        self._more = job is not None
        return job

    def _begin(self, job: Job) -> _Running:
        pieces = self._pieces(job)
        shortest = SHORTEST_SEGMENT if self.split is None else 1
        divided = DividedRun(job.config, pieces, shortest) if pieces > 1 else None
        running = _Running(job, time.monotonic(), divided, job.choice)
        running.ready.extend([Task(job)] if divided is None else [Task(job, step) for step in divided.steps()])
        self._running.append(running)
        return running

    def _pieces(self, job: Job) -> int:
        """In how many segments it is to be rendered."""
        if self.split is not None:
            return self.split
        if self._ahead is not None:
            return 1
        try:
            if is_motion_file(job.config.driving):
                return self.workers
            frames = expected_frames(job.config, probe(job.config.driving, job.config.fps))
        except InputError:
            # The job says so better.
            return 1
        return min(self.workers, (frames or 0) // SHORTEST_SEGMENT)

    def _heard(self, task: Task, result: Any) -> Iterator[tuple[Job, Result]]:
        """Take what came of a task."""
        # A job that ended may come again, or another's claim may be free.
        self._pause = 0.0
        running = next(each for each in self._running if task in each.out)
        running.out.discard(task)
        divided = running.divided
        if divided is None or task.step is None or isinstance(result, Done):
            running.result = result
        elif isinstance(result, Died) and running.losses < _TRIES - 1:
            running.losses += 1
            running.ready.append(task)
        elif isinstance(result, Died | Failed):
            running.result = running.result or result
        else:
            if isinstance(task.step, Begin):
                running.choice, result = result
            divided.done(task.step, result)
            job = replace(running.job, choice=running.choice)
            running.ready.extend(Task(job, step) for step in divided.steps())
        yield from self._concluded(running)

    def _concluded(self, running: _Running) -> Iterator[tuple[Job, Result]]:
        """The job with its result, where it has come to its end."""
        divided, result = running.divided, running.result
        if result is not None:
            running.ready.clear()
            self.crew.interrupt(running.out)
            if running.out:
                return
            if divided is not None:
                divided.close()
                running.divided = None
            self._running.remove(running)
            if isinstance(result, Done):
                result = replace(result, seconds=time.monotonic() - running.began)
            yield running.job, result

    def _late(self) -> Iterator[tuple[Job, Result]]:
        """Stop jobs that take too long."""
        if self.timeout is None:
            return
        for running in list(self._running):
            if time.monotonic() - running.began > self.timeout:
                self.crew.drop(running.out)
                running.out.clear()
                running.result = TimedOut(f"it took longer than {self.timeout:g} s")
                yield from self._concluded(running)

    def _told(self, task: Task, done: int, total: int | None) -> None:
        running = next(each for each in self._running if task in each.out)
        if running.divided is not None and task.step is not None:
            done, total = running.divided.progress(task.step, done)
        self.tell(running.job, done, total)
