"""Jobs on a Ray cluster: one actor per worker; a long driving video can be divided among them.

Ray restarts a lost worker and repeats its task. A job whose driving video is divided becomes one task that makes the
motion, tasks that render ranges of frames to lossless pictures, and one that encodes the result.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl import __version__
from fommctl.batch.cluster import Cluster, Share, connected, share_out
from fommctl.batch.jobs import Job
from fommctl.batch.status import output_fingerprint
from fommctl.batch.worker import Rendered, Worker
from fommctl.errors import InputError, InterruptedRunError, MissingError
from fommctl.files import is_running, real_target, temporary_path
from fommctl.media.output_paths import is_pattern, remove_stale_output
from fommctl.workers import PATIENCE, Backoff, Done, Failed, Outcome, Progress, TimedOut, WorkerCrashed, attempt

if TYPE_CHECKING:
    from fommctl.animate.config import FrameRange
    from fommctl.animate.motion import Motion
    from fommctl.animate.plan import AnimationPlan
    from fommctl.animate.run import RenderedFrames
    from fommctl.batch.config import BatchConfig

log = logging.getLogger(__name__)
POLL_S = 0.5
START_S = 120.0
"""Seconds in which at least one worker has to start."""
SHORTEST_RANGE = 250
"""Least number of frames of a range if the number of ranges is automatic: starting a shorter one costs more than it
saves."""
RETRIES = 2
"""How often Ray repeats a task whose worker was lost."""


def run_jobs(
    jobs: Iterator[Job | Backoff], config: BatchConfig, report: Callable[[Job, int, int | None], None]
) -> Generator[tuple[Job, Outcome[Rendered]], None, None]:
    """Yield each job with its outcome, in order of completion; close the generator to stop early, without partial
    files.

    jobs: the next one is taken when a worker is free. Raises MissingError without Ray.
    """
    with connected(config.address, config.workers) as cluster:
        share = share_out(cluster, config.workers, config.devices)
        device = "cpu" if "cpu" in config.devices else "auto"
        yield from _Run(jobs, cluster, share, device, config.split, config.timeout, report).outcomes()


@dataclass(frozen=True, slots=True)
class WorkerHost:
    """The machine, process and version of fommctl of a worker."""

    host: str
    pid: int
    fommctl: str


@dataclass(frozen=True, slots=True)
class Divided:
    """What all tasks of a divided job need."""

    job: Job
    """The job, with the precision chosen by the first worker's machine."""
    plan: AnimationPlan
    motions: Sequence[Motion]
    folder: Path
    """Folder of the rendered pictures."""


class RayWorker:
    """The Ray actor. It keeps its models from task to task; of its two threads, one works and one answers queries."""

    def __init__(self, device: str, threads: int) -> None:
        self._worker = Worker(device)
        self._threads = threads
        self._progress: tuple[int, int | None] = (0, None)
        self._stopped = False
        logging.getLogger("fommctl").addHandler(logging.NullHandler())
        # stdout is for the result of the command, which may run on this machine too.
        sys.stdout = sys.stderr

    def place(self) -> WorkerHost:
        """Return the worker's place; answers once the worker is ready."""
        return WorkerHost(platform.node(), os.getpid(), __version__)

    def progress(self) -> tuple[int, int | None]:
        """Return (frames done, total or None) of the current task."""
        return self._progress

    def stop(self) -> None:
        """End the current task, and remove what it has written."""
        self._stopped = True

    def render_job(self, job: Job) -> Outcome[Rendered]:
        """Render a whole job."""
        return self._do(self._render_job, job)

    def make_motion(self, job: Job, pieces: int, shortest: int, folder: Path) -> Outcome[Any]:
        """Plan a job and detect its motion; the result is (Divided, ranges)."""
        return self._do(lambda each, report: self._make_motion(each, report, pieces, shortest, folder), job)

    def render_range(self, divided: Divided, frames: FrameRange) -> Outcome[RenderedFrames]:
        """Render a range of frames to pictures."""
        from fommctl.animate.run import render_frames

        def work(each: Divided, report: Progress) -> RenderedFrames:
            animator = self._worker.ready(each.job.choice)
            return render_frames(each.plan, each.motions, animator, frames, each.folder, report)

        return self._do(work, divided)

    def encode(self, divided: Divided, *parts: RenderedFrames) -> Outcome[Rendered]:
        """Write the result from the pictures of all ranges."""
        from fommctl.animate.run import encode_frames

        def work(each: Divided, report: Progress) -> Rendered:
            animator = self._worker.ready(each.job.choice)
            result = encode_frames(each.plan, each.motions, animator, parts)
            return Rendered(result=result.to_json(), fingerprint=output_fingerprint(each.job.output))

        return self._do(work, divided)

    def _do(self, work: Callable[[Any, Progress], Any], job: Any) -> Outcome[Any]:
        import torch

        torch.set_num_threads(self._threads)
        self._stopped, self._progress = False, (0, None)
        try:
            return attempt(work, job, self._report)
        except InterruptedRunError as error:
            return Failed(message=error.message)

    def _report(self, done: int, total: int | None) -> None:
        self._progress = done, total
        if self._stopped:
            raise InterruptedRunError("stopped")

    def _render_job(self, job: Job, report: Progress) -> Rendered:
        _check_seen(job)
        return self._worker(job, report)

    def _make_motion(
        self, job: Job, report: Progress, pieces: int, shortest: int, folder: Path
    ) -> tuple[Divided, list[FrameRange]]:
        from fommctl.animate.detecting import usual_batch_size
        from fommctl.animate.run import divide, make_motion
        from fommctl.media.movie import output_errors

        _check_seen(job)
        animator = self._worker.ready(job.choice)
        plan, motions = make_motion(job.config, animator)
        size = plan.config.batch_size or usual_batch_size(animator.device)
        ranges = divide(plan, motions, pieces, batch_size=size, shortest=shortest)
        with output_errors(job.output):
            folder.mkdir(exist_ok=True)
        choice = replace(job.choice, precision=animator.precision)  # type: ignore[arg-type]  # a word of it
        job = replace(job, choice=choice)
        return Divided(job, plan, motions, folder), ranges


def _check_seen(job: Job) -> None:
    """Raise InputError for files and folders of a job that this machine cannot see."""
    config, choice, output = job.config, job.choice, job.output
    named = [Path(name) for name in (choice.model, choice.preset) if name is not None and Path(name).is_absolute()]
    folder = output.parent.parent if is_pattern(output) else output.parent
    for path in (*config.inputs, folder, *named):
        if not (path.parent if "%" in path.name and not path.exists() else path).exists():
            raise InputError(
                f"{path} is not visible on {platform.node()}",
                "Put inputs, models and outputs on storage that all machines mount at the same path.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A task: a method of a worker and its arguments."""

    method: str
    arguments: tuple[Any, ...]


_Steps = Generator[list[_Call], list[Any], Rendered]
"""A job as a generator: yields tasks that can run in parallel, is sent their results, returns the job's result."""


def _whole(job: Job) -> _Steps:
    (rendered,) = yield [_Call("render_job", (job,))]
    return rendered  # type: ignore[no-any-return]


def _divided(job: Job, pieces: int, shortest: int, put: Callable[[Any], Any]) -> _Steps:
    """Run a job with a divided driving video.  put: stores a value for all workers."""
    folder = _folder_of(job.output)
    try:
        ((divided, ranges),) = yield [_Call("make_motion", (job, pieces, shortest, folder))]
        shared = put(divided)
        parts = yield [_Call("render_range", (shared, frames)) for frames in ranges]
        (rendered,) = yield [_Call("encode", (shared, *parts))]
        return rendered  # type: ignore[no-any-return]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder_of(output: Path) -> Path:
    """Return a path for a hidden folder of pictures, on the output's disk."""
    target = real_target(output)
    if not is_pattern(target):
        return temporary_path(target)
    place = target.parent if target.parent.exists() else target.parent.parent
    return place / temporary_path(target.parent).name


@dataclass(slots=True, eq=False)
class _Running:
    """A job that has begun, and its tasks."""

    job: Job
    steps: _Steps
    began: float = field(default_factory=time.monotonic)
    ready: deque[_Call] = field(default_factory=deque)
    calls: list[_Call] = field(default_factory=list)
    """Tasks of the current step."""
    results: dict[_Call, Any] = field(default_factory=dict)
    out: set[_Call] = field(default_factory=set)
    """Tasks that workers are doing."""
    frames: dict[_Call, int] = field(default_factory=dict)
    total: int | None = None
    outcome: Outcome[Rendered] | None = None
    """Outcome of the job; reported once its other tasks have ended."""

    def advance(self, results: list[Any] | None = None) -> None:
        """Continue with the next step, or set the outcome."""
        try:
            self.calls = self.steps.send(results) if results is not None else next(self.steps)
        except StopIteration as end:
            self.outcome = Done(end.value, time.monotonic() - self.began)
            return
        self.ready.extend(self.calls)
        self.results = {}


@dataclass(slots=True, eq=False)
class _Member:
    """A worker and its current task."""

    actor: Any
    ref: Any
    """Reference to its pending answer: its place, then outcomes of tasks; None while it is idle."""
    place: WorkerHost | None = None
    running: _Running | None = None
    call: _Call | None = None
    asked: Any = None
    """Reference to its pending answer about progress."""


class _Run:
    """All jobs of one batch on one cluster."""

    def __init__(
        self,
        jobs: Iterator[Job | Backoff],
        cluster: Cluster,
        share: Share,
        device: str,
        split: int | None,
        timeout: float | None,
        report: Callable[[Job, int, int | None], None],
    ) -> None:
        self._jobs = jobs
        self._ray = cluster.ray
        self._share = share
        self._device = device
        self._split = split
        self._timeout = timeout
        self._report = report
        self._ahead: Job | None = None
        self._more = True
        self._pause = 0.0
        self._running: list[_Running] = []
        self._began = time.monotonic()
        self._kind = self._ray.remote(RayWorker).options(
            num_cpus=share.threads,
            num_gpus=int(share.gpu),
            max_concurrency=2,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )
        self._members = [self._new() for _ in range(share.workers)]

    def outcomes(self) -> Generator[tuple[Job, Outcome[Rendered]], None, None]:
        """Yield each job with its outcome."""
        try:
            while True:
                self._hand_out()
                if not (self._more or self._running or self._ahead):
                    return
                self._receive()
                self._stop_late()
                yield from self._concluded()
        finally:
            # End workers first: otherwise they would go on writing.
            self._end(self._members)
            for running in self._running:
                running.steps.close()
                remove_stale_output(running.job.output)

    def _new(self) -> _Member:
        actor = self._kind.remote(self._device, self._share.threads)
        return _Member(actor, actor.place.remote())

    def _hand_out(self) -> None:
        """Give tasks to idle workers."""
        for member in self._members:
            if member.ref is not None:
                continue
            running = next((each for each in self._running if each.ready), None)
            if running is None:
                job = self._take()
                if job is None:
                    return
                running = self._begin(job)
            call = running.ready.popleft()
            running.out.add(call)
            member.running, member.call, member.asked = running, call, None
            member.ref = getattr(member.actor, call.method).remote(*call.arguments)

    def _begin(self, job: Job) -> _Running:
        pieces = self._pieces(job)
        shortest = SHORTEST_RANGE if self._split is None else 1
        steps = _divided(job, pieces, shortest, self._ray.put) if pieces > 1 else _whole(job)
        running = _Running(job, steps)
        running.advance()
        self._running.append(running)
        return running

    def _take(self) -> Job | None:
        """Return the next job; None if there is none at the moment."""
        job, self._ahead = self._ahead, None
        if job is None:
            job = self._next()
        if job is not None and self._split is None:
            self._ahead = self._next()
        return job

    def _next(self) -> Job | None:
        if not self._more or time.monotonic() < self._pause:
            return None
        self._pause = 0.0
        job = next(self._jobs, None)
        if isinstance(job, Backoff):
            self._pause = time.monotonic() + job.seconds
            return None
        self._more = job is not None
        return job

    def _pieces(self, job: Job) -> int:
        """Return the number of ranges in which a job is rendered."""
        if self._split is not None:
            return self._split
        if self._ahead is not None:
            return 1
        from fommctl.animate.motion import is_motion_file
        from fommctl.animate.run import expected_frames
        from fommctl.media.probe import probe

        if is_motion_file(job.config.driving):
            return self._share.workers
        try:
            frames = expected_frames(job.config, probe(job.config.driving, job.config.fps))
        except InputError:
            # Rendering the job reports this error better.
            return 1
        return min(self._share.workers, (frames or 0) // SHORTEST_RANGE)

    def _receive(self) -> None:
        """Wait briefly for outcomes, and process those that have arrived."""
        waiting = {member.ref: member for member in self._members if member.ref is not None}
        pause = max(0.01, min(POLL_S, self._pause - time.monotonic())) if self._pause else POLL_S
        refs = list(waiting)
        if not refs:
            time.sleep(pause)
            return
        self._ray.wait(refs, num_returns=1, timeout=pause)
        ended, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ended:
            member = waiting[ref]
            if member.place is None:
                self._welcome(member)
            else:
                self._take_outcome(member)
        for member in self._members:
            if member.running is not None:
                self._ask(member)
        if all(member.place is None for member in self._members) and time.monotonic() - self._began > START_S:
            raise MissingError(
                f"no worker could be started in {START_S:.0f} s: the machines of this Ray cluster are busy",
                "'ray status' shows what is taken; give fewer --workers, or wait.",
            )

    def _welcome(self, member: _Member) -> None:
        try:
            member.place = self._ray.get(member.ref)
        except self._ray.exceptions.RayError as error:
            raise MissingError(
                f"workers cannot be started: {_reason(error)}",
                "Install the same fommctl on all machines, and start Ray from that installation.",
            ) from error
        member.ref = None
        assert member.place is not None
        if member.place.fommctl != __version__:
            raise MissingError(
                f"fommctl is {member.place.fommctl} on {member.place.host}, and {__version__} here",
                "Install the same version on all machines.",
            )
        log.info("worker on %s (process %d)", member.place.host, member.place.pid)

    def _take_outcome(self, member: _Member) -> None:
        # A job that has ended may be retried, or the lock of another batch may be free now.
        self._pause = 0.0
        running, call = member.running, member.call
        assert running is not None
        assert call is not None
        outcome = self._outcome(member)
        running.out.discard(call)
        if isinstance(outcome, Done):
            running.results[call] = outcome.result
            if call.method == "make_motion":
                running.total = sum(each.last - each.first + 1 for each in outcome.result[1])
            if running.outcome is None and len(running.results) == len(running.calls):
                running.advance([running.results[each] for each in running.calls])
        elif running.outcome is None:
            running.outcome = outcome
            self._interrupt(running)

    def _outcome(self, member: _Member) -> Outcome[Any]:
        ref, member.ref, member.running, member.call = member.ref, None, None, None
        try:
            return self._ray.get(ref)  # type: ignore[no-any-return]
        except self._ray.exceptions.RayTaskError as error:
            # The worker still works: arguments or result could not be transferred.
            return WorkerCrashed(message=f"the job cannot be handed to a worker: {_reason(error)}")
        except self._ray.exceptions.RayError as error:
            log.debug("lost a worker for good", exc_info=True)
            self._replace([member])
            assert member.place is not None
            kind = "memory ran out" if "memory" in type(error).__name__.lower() else "its process or machine was lost"
            return WorkerCrashed(message=f"its worker on {member.place.host} crashed {RETRIES + 1} times: {kind}")

    def _interrupt(self, running: _Running) -> None:
        """End the other tasks of a job that has failed."""
        running.ready.clear()
        for member in self._members:
            if member.running is running:
                member.actor.stop.remote()

    def _ask(self, member: _Member) -> None:
        running, call = member.running, member.call
        assert running is not None
        assert call is not None
        if member.asked is None:
            member.asked = member.actor.progress.remote()
        elif self._ray.wait([member.asked], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                done, total = self._ray.get(member.asked)
                if done and call.method != "make_motion":
                    running.frames[call] = done
                    whole = total if call.method == "render_job" else running.total
                    self._report(running.job, sum(running.frames.values()), whole)
            member.asked = None

    def _stop_late(self) -> None:
        """Stop jobs that exceed the time limit."""
        for running in self._running:
            if self._timeout is not None and time.monotonic() - running.began > self._timeout:
                running.ready.clear()
                running.outcome = TimedOut(message=f"it took longer than {self._timeout:g} s")
                late = [member for member in self._members if member.running is running]
                running.out.clear()
                self._end(late)
                self._replace(late)

    def _concluded(self) -> Iterator[tuple[Job, Outcome[Rendered]]]:
        """Yield the jobs that have ended."""
        for running in list(self._running):
            if running.outcome is not None and not running.out:
                running.steps.close()
                self._running.remove(running)
                yield running.job, running.outcome

    def _replace(self, members: Sequence[_Member]) -> None:
        for member in members:
            self._kill(member)
            self._members[self._members.index(member)] = self._new()
        self._began = time.monotonic()

    def _end(self, members: Sequence[_Member]) -> None:
        """End workers; busy ones have some time to remove partial files."""
        at_work = [member for member in members if member.running is not None]
        for member in at_work:
            with contextlib.suppress(self._ray.exceptions.RayError):
                member.actor.stop.remote()
        if at_work:
            self._ray.wait([member.ref for member in at_work], num_returns=len(at_work), timeout=PATIENCE)
        for member in members:
            self._kill(member)
        for member in at_work:
            _wait_until_gone(member.place)

    def _kill(self, member: _Member) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(member.actor)


def _wait_until_gone(place: WorkerHost | None) -> None:
    """Wait for a process of this machine to end, so that its partial files can be removed."""
    end = time.monotonic() + PATIENCE
    while place is not None and place.host == platform.node() and is_running(place.pid) and time.monotonic() < end:
        time.sleep(0.05)


def _reason(error: BaseException) -> str:
    """Return the last line of a traceback, which names the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
