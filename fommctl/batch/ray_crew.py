"""The workers on a Ray cluster: started where there is room, asked how far they are, replaced when they are lost."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fommctl import __version__
from fommctl.batch.ray_connection import Cluster, Share
from fommctl.batch.ray_worker import Place, RayWorker, Task
from fommctl.errors import MissingError
from fommctl.files import is_running
from fommctl.worker_life import PATIENCE
from fommctl.workers import Died

log = logging.getLogger(__name__)
POLL_S = 0.5
START_S = 120.0
"""Seconds in which at least one worker has to start."""
_LOST_STARTS = 3
"""So many workers in a row that die before they do anything are not an accident."""


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, and what it is at."""

    actor: Any
    ready: Any
    """Reference to its place, as long as it has not told it."""
    place: Place | None = None
    task: Task | None = None
    answer: Any = None
    asked: Any = None
    """Reference to its progress."""


class Crew:
    """A number of workers; close it in any case."""

    def __init__(self, cluster: Cluster, share: Share, device: str) -> None:
        self._ray = cluster.ray
        self._share = share
        self._device = device
        self._began = time.monotonic()
        self._lost_starts = 0
        options: dict[str, Any] = {"num_cpus": share.threads, "num_gpus": int(share.gpu), "max_concurrency": 2}
        self._kind = self._ray.remote(RayWorker).options(**options, max_restarts=0, max_task_retries=0)
        self._members = [self._new() for _ in range(share.workers)]

    @property
    def idle(self) -> int:
        """Workers that are ready and have nothing to do."""
        return sum(1 for member in self._members if member.place is not None and member.task is None)

    @property
    def busy(self) -> bool:
        return any(member.task is not None for member in self._members)

    def give(self, task: Task) -> None:
        """To a worker that is idle."""
        member = next(each for each in self._members if each.place is not None and each.task is None)
        member.task, member.answer, member.asked = task, member.actor.do.remote(task), None

    def heard(self, seconds: float, tell: Callable[[Task, int, int | None], None]) -> list[tuple[Task, Any]]:
        """Tasks that ended, with what came of them (Died where their worker was lost), after so many seconds at most.

        Raises MissingError where no worker can be started.
        """
        waited = [ref for member in self._members for ref in (member.ready, member.answer) if ref is not None]
        self._ray.wait(waited, num_returns=1, timeout=min(POLL_S, seconds))
        ended = []
        for member in list(self._members):
            if member.ready is not None:
                self._look_whether_ready(member)
            elif member.answer is not None and self._is_here(member.answer):
                assert member.task is not None
                task, member.task = member.task, None
                ended.append((task, self._result(member)))
            elif member.task is not None:
                self._ask(member, tell)
        if all(member.place is None for member in self._members) and time.monotonic() - self._began > START_S:
            raise MissingError(
                f"no worker could be started in {START_S:.0f} s: the machines of this Ray have other work",
                "'ray status' shows what is taken; give fewer --workers, or wait.",
            )
        return ended

    def interrupt(self, tasks: Collection[Task]) -> None:
        """End tasks whose results nobody wants any more; they come back as failed."""
        for member in self._members:
            if member.task in tasks:
                member.actor.stop.remote()

    def drop(self, tasks: Collection[Task]) -> None:
        """Stop the workers of tasks that took too long, and start others."""
        dropped = [member for member in self._members if member.task in tasks]
        self._end(dropped)
        for member in dropped:
            self._replace(member)

    def close(self) -> None:
        """End all workers; those that are at work have a while to remove what they have half-written."""
        self._end(self._members)
        self._members = []

    def _new(self) -> _Member:
        actor = self._kind.remote(self._device, self._share.threads)
        return _Member(actor, actor.place.remote())

    def _replace(self, member: _Member) -> None:
        self._members[self._members.index(member)] = self._new()
        self._began = time.monotonic()

    def _is_here(self, ref: Any) -> bool:
        return bool(self._ray.wait([ref], timeout=0)[0])

    def _look_whether_ready(self, member: _Member) -> None:
        if not self._is_here(member.ready):
            return
        try:
            member.place = self._ray.get(member.ready)
        except self._ray.exceptions.RayError as error:
            self._lost_starts += 1
            if self._lost_starts >= _LOST_STARTS:
                raise MissingError(
                    f"workers cannot be started: {_reason(error)}",
                    "Install the same fommctl on all machines, and start Ray from that installation.",
                ) from error
            self._replace(member)
            return
        self._lost_starts = 0
        member.ready = None
        assert member.place is not None
        if member.place.fommctl != __version__:
            raise MissingError(
                f"fommctl is {member.place.fommctl} on {member.place.host}, and {__version__} here",
                "Install the same version on all machines.",
            )
        log.info("worker on %s (process %d)", member.place.host, member.place.pid)

    def _result(self, member: _Member) -> Any:
        ref, member.answer = member.answer, None
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            # The worker is well: what it was given or gave back could not be handed over.
            return Died(f"it cannot be handed to a worker: {_reason(error)}")
        except self._ray.exceptions.RayError as error:
            log.debug("lost a worker", exc_info=True)
            self._replace(member)
            self._kill(member)
            assert member.place is not None
            kind = "memory ran out" if "memory" in type(error).__name__.lower() else "its process or machine was lost"
            return Died(f"its worker on {member.place.host} died: {kind}")

    def _ask(self, member: _Member, tell: Callable[[Task, int, int | None], None]) -> None:
        if member.asked is None:
            member.asked = member.actor.progress.remote()
        elif self._is_here(member.asked):
            with contextlib.suppress(self._ray.exceptions.RayError):
                done, total = self._ray.get(member.asked)
                if done and member.task is not None:
                    tell(member.task, done, total)
            member.asked = None

    def _end(self, members: list[_Member]) -> None:
        at_work = [member for member in members if member.answer is not None]
        for member in at_work:
            with contextlib.suppress(self._ray.exceptions.RayError):
                member.actor.stop.remote()
        answers = [member.answer for member in at_work]
        if answers:
            self._ray.wait(answers, num_returns=len(answers), timeout=PATIENCE)
        for member in members:
            self._kill(member)
        for member in at_work:
            _wait_until_gone(member.place)

    def _kill(self, member: _Member) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(member.actor)


def _wait_until_gone(place: Place | None) -> None:
    """What a process of this machine has left half-written can be removed once it is gone."""
    end = time.monotonic() + PATIENCE
    while place is not None and place.host == platform.node() and is_running(place.pid) and time.monotonic() < end:
        time.sleep(0.05)


def _reason(error: BaseException) -> str:
    """The last line of a trace, which says what it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
