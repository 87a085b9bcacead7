"""Jobs in worker processes: every job gets a result, whatever happens to the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fommctl.errors import InputError, OutputError
from fommctl.workers import Backoff, Done, Failed, Progress, TimedOut, WorkerCrashed, run_jobs


@pytest.fixture(autouse=True)
def as_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fommctl.workers.CONTEXT", multiprocessing.get_context("spawn"))


def double(plus: int) -> Callable[[object, Progress], object]:
    def work(job: object, report: Progress) -> object:
        report(1, 2)
        if job == "die":
            os._exit(3)
        if job == "print":
            print("a plugin talks")
            return "printed"
        return job() if callable(job) else job * 2 + plus  # type: ignore[operator]

    return work


class Unreadable:
    """An object that can be pickled but not unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def test_jobs_in_processes_come_back_with_their_results() -> None:
    told: list[tuple[object, ...]] = []
    begun: list[object] = []
    jobs = [1, 2, "die", 4]
    results = dict(
        run_jobs(jobs, double, (5,), workers=2, report=lambda job, *more: told.append((job, *more)), begin=begun.append)
    )
    assert results.pop("die") == WorkerCrashed(message="its process ended with code 3")
    assert {job: outcome.result for job, outcome in results.items() if isinstance(outcome, Done)} == {1: 7, 2: 9, 4: 13}
    assert sorted(map(str, begun)) == sorted(map(str, jobs))
    assert (4, 1, 2) in told


@pytest.mark.parametrize("workers", [0, 1])
def test_jobs_that_cannot_be_handed_over_are_done_here(workers: int) -> None:
    me = os.getpid()
    jobs = [1, lambda: os.getpid(), 3]
    assert sorted(outcome.result for _, outcome in run_jobs(jobs, double, (0,), workers=workers)) == [2, 6, me]  # type: ignore[union-attr]


def test_jobs_that_do_not_arrive_and_what_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """stdout is the command's: --json prints one object there and nothing else."""
    broken = Unreadable()
    results = dict(run_jobs([broken, "print", 2], double, (0,), workers=1))
    crashed = results.pop(broken)
    assert isinstance(crashed, WorkerCrashed)
    assert crashed.message.startswith("the job cannot be handed to a process: invalid literal")
    assert {job: outcome.result for job, outcome in results.items()} == {"print": "printed", 2: 4}  # type: ignore[union-attr]
    assert capfd.readouterr() == ("", "a plugin talks\n")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_ctrl_c_while_a_process_starts_is_for_its_parent_alone() -> None:
    ((_, outcome),) = run_jobs([_blocked], double, (0,), workers=1)
    assert isinstance(outcome, Done)
    assert signal.SIGINT in outcome.result  # type: ignore[operator]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _blocked() -> set[int]:
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_stopping_early_ends_the_processes() -> None:
    results = run_jobs(range(1, 100), double, (0,), workers=2)
    next(results)
    results.close()
    assert list(results) == []


def fail(error: Exception) -> Callable[[object, Progress], object]:
    def work(job: object, report: Progress) -> object:
        raise error

    return work


def refuse(error: Exception) -> Callable[[object, Progress], object]:
    raise error


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("prepare", [fail, refuse])
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InputError("no face", "Use --crop."), Failed(message="no face", hint="Use --crop.", exit_code=3)),
        (PermissionError(13, "Permission denied"), Failed(message="permission denied", exit_code=3)),
        (OSError(28, "No space left"), Failed(message="no space left", exit_code=3, disk_full=True)),
        (ZeroDivisionError("of a plugin"), Failed(message="ZeroDivisionError: of a plugin", exit_code=1)),
        (
            chained(OutputError("the disk is full: a.mp4"), OSError(28, "x")),
            Failed(message="the disk is full: a.mp4", exit_code=3, disk_full=True),
        ),
    ],
)
def test_what_a_job_raises_is_its_failure(prepare: Callable[..., object], error: Exception, outcome: Failed) -> None:
    """An output that cannot be written fails its job; only a full disk stops the run."""
    outcomes = [found for _, found in run_jobs([1, 2], prepare, (error,), workers=0)]  # type: ignore[arg-type]
    assert [replace(found, seconds=0) for found in outcomes if isinstance(found, Failed)] == [outcome, outcome]
    if outcome.disk_full:
        with pytest.raises(OutputError):
            outcome.raise_if_disk_full()
    else:
        outcome.raise_if_disk_full()
    assert outcome.to_error().exit_code == outcome.exit_code


def slow(number: int) -> Callable[[object, Progress], object]:
    def work(job: object, report: Progress) -> object:
        try:
            report(0, None)
            time.sleep(60 if job == "long" else 0)
        finally:
            if isinstance(job, str):
                cleaned(job)
        return number, job

    return work


def cleaned(job: str) -> None:
    """Write the file that shows that a job cleaned up, whole or not at all."""
    path = Path(os.environ["CLEANED"])
    path.with_suffix(".part").write_text(job)
    path.with_suffix(".part").replace(path)


def told_late() -> Callable[[str, Progress], object]:
    """Return work that notices by its report that the parent has ended, and gets SIGTERM while it cleans up."""

    def work(job: str, report: Progress) -> object:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            while True:
                report(0, None)
                time.sleep(0.01)
        finally:
            end = time.monotonic() + 2
            while signal.SIGTERM not in signal.sigpending() and time.monotonic() < end:
                time.sleep(0.01)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            time.sleep(0.01)
            cleaned(job)

    return work


def test_a_job_that_takes_too_long_is_stopped_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANED", str(tmp_path / "cleaned"))
    results = dict(run_jobs(["long", 1, 2], slow, lambda number: (number,), workers=1, timeout=4))
    assert results.pop("long") == TimedOut(message="it took longer than 4 s")
    assert [outcome.result for outcome in results.values()] == [(0, 1), (0, 2)]  # type: ignore[union-attr]
    assert (tmp_path / "cleaned").read_text() == "long"


@pytest.mark.parametrize("workers", [0, 1])
def test_jobs_are_taken_when_a_worker_is_free_and_may_be_waited_for(workers: int) -> None:
    ended: list[object] = []

    def jobs() -> Iterator[object]:
        yield 1
        while not ended:
            yield Backoff(0.05)
        # Only the first one's result shows that there is a second.
        yield ended[0]

    for _, result in run_jobs(jobs(), double, (5,), workers=workers):
        assert isinstance(result, Done)
        ended.append(result.result)
    assert ended == [7, 19]


@pytest.mark.parametrize("work", ["slow", "told_late"])
def test_a_job_ends_with_its_parent(tmp_path: Path, work: str) -> None:
    """After SIGKILL, the parent has no time to end its jobs."""
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
os.environ["CLEANED"] = {str(tmp_path / "cleaned")!r}
from test_workers import {work}
from fommctl.workers import run_jobs

def report(job, done, total):
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    list(run_jobs(["long"], {work}, {(0,) if work == "slow" else ()}, workers=1, report=report))
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while not (tmp_path / "cleaned").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "cleaned").read_text() == "long"
