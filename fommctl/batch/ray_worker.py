"""What a Ray worker is: a process that keeps its models, does whole jobs and steps of divided ones, and can be asked
how far it is."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fommctl import __version__
from fommctl.batch.divided import Begin, Join, Step
from fommctl.batch.jobs import Job
from fommctl.batch.stamps import stamp_of
from fommctl.batch.worker import Done, Failed, Worker, failed
from fommctl.errors import InterruptedRunError
from fommctl.media.output_paths import is_pattern


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a worker is given: a job, or one step of it. Each is itself alone."""

    job: Job
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs."""

    host: str
    pid: int
    fommctl: str


class RayWorker:
    """An actor; two threads: one works, one answers."""

    def __init__(self, device: str, threads: int) -> None:
        self._worker = Worker(device)
        self._threads = threads
        self._progress: tuple[int, int | None] = (0, None)
        self._stopped = False
        logging.getLogger("fommctl").addHandler(logging.NullHandler())
        # stdout belongs to the result of the command, where that runs here too.
        sys.stdout = sys.stderr

    def place(self) -> Place:
        """Where this is, once it is ready."""
        return Place(platform.node(), os.getpid(), __version__)

    def progress(self) -> tuple[int, int | None]:
        """(frames done, frames in all or None) of the task in hand."""
        return self._progress

    def stop(self) -> None:
        """End the task in hand; what it has written so far is removed."""
        self._stopped = True

    def do(self, task: Task) -> Any:
        """A whole job gives Done or Failed; a step gives its result or Failed. The first step of a job gives also the
        ModelChoice for the others, the last gives Done."""
        import torch

        torch.set_num_threads(self._threads)
        self._stopped, self._progress = False, (0, None)
        missing = next(_unseen(task), None)
        if missing is not None:
            return Failed(
                message=f"{missing} is not to be seen on {platform.node()}",
                hint="Inputs, models and outputs belong on storage that all machines have under the same path.",
                exit_code=3,
            )
        return self._worker(task.job, self._tell) if task.step is None else self._step(task.job, task.step)

    def _step(self, job: Job, step: Step) -> Any:
        import torch

        began = time.monotonic()
        try:
            animator, state = self._worker.loaded(job.choice)
            torch.set_rng_state(state)
            result = step(animator, self._tell)
        except Exception as error:
            return failed(error, time.monotonic() - began)
        if isinstance(step, Begin):
            # Every range in the precision that this worker's machine has decided on.
            return replace(job.choice, precision=animator.precision), result
        if isinstance(step, Join):
            return Done(result=result.to_json(), seconds=time.monotonic() - began, stamp=stamp_of(job.output))
        return result

    def _tell(self, done: int, total: int | None) -> None:
        self._progress = done, total
        if self._stopped:
            raise InterruptedRunError("stopped")


def _unseen(task: Task) -> Iterator[Path]:
    """What a job needs and this machine does not have."""
    if task.step is not None and not isinstance(task.step, Begin):
        return
    config, choice = task.job.config, task.job.choice
    output = task.job.output
    files = [
        config.source,
        config.driving,
        *config.views,
        output.parent.parent if is_pattern(output) else output.parent,
    ]
    named = [Path(name) for name in (choice.model, choice.preset) if name is not None and Path(name).is_absolute()]
    for path in (*files, *named):
        if not (path.parent if "%" in path.name and not path.exists() else path).exists():
            yield path
