"""Jobs in processes of their own: every job has its result, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fommctl.workers import Died, Tell, TimedOut, Wait, run_jobs


def double(plus: int) -> Callable[[object, Tell], object]:
    def work(job: object, tell: Tell) -> object:
        tell(1, 2)
        if job == "die":
            os._exit(3)
        if job == "print":
            print("a plugin talks")
            return "printed"
        return job() if callable(job) else job * 2 + plus  # type: ignore[operator]

    return work


class Unreadable:
    """Can be sent, but not received."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def test_jobs_in_processes_come_back_with_their_results() -> None:
    told: list[tuple[object, ...]] = []
    begun: list[object] = []
    jobs = [1, 2, "die", 4]
    results = dict(
        run_jobs(jobs, double, (5,), workers=2, tell=lambda job, *more: told.append((job, *more)), begin=begun.append)
    )
    assert results == {1: 7, 2: 9, "die": Died("its process ended with code 3"), 4: 13}
    assert sorted(map(str, begun)) == sorted(map(str, jobs))
    assert (4, 1, 2) in told


@pytest.mark.parametrize("workers", [0, 1])
def test_jobs_that_cannot_be_handed_over_are_done_here(workers: int) -> None:
    me = os.getpid()
    jobs = [1, lambda: os.getpid(), 3]
    assert sorted(result for _, result in run_jobs(jobs, double, (0,), workers=workers)) == [2, 6, me]


def test_jobs_that_do_not_arrive_and_what_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """stdout belongs to the command: --json puts one object there and nothing else."""
    broken = Unreadable()
    results = dict(run_jobs([broken, "print", 2], double, (0,), workers=1))
    died = results.pop(broken)
    assert isinstance(died, Died)
    assert died.reason.startswith("it cannot be handed to a process: invalid literal")
    assert results == {"print": "printed", 2: 4}
    assert capfd.readouterr() == ("", "a plugin talks\n")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_ctrl_c_while_a_process_starts_is_for_its_parent_alone() -> None:
    ((_, blocked),) = run_jobs([_blocked], double, (0,), workers=1)
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _blocked() -> set[int]:
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_stopping_early_ends_the_processes() -> None:
    results = run_jobs(range(1, 100), double, (0,), workers=2)
    next(results)
    results.close()
    assert list(results) == []


def slow(number: int) -> Callable[[object, Tell], object]:
    def work(job: object, tell: Tell) -> object:
        try:
            tell(0, None)
            time.sleep(60 if job == "long" else 0)
        finally:
            if isinstance(job, str):
                Path(os.environ["CLEANED"]).write_text(job)
        return number, job

    return work


def test_a_job_that_takes_too_long_is_stopped_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANED", str(tmp_path / "cleaned"))
    results = dict(run_jobs(["long", 1, 2], slow, lambda number: (number,), workers=1, timeout=4))
    assert results == {"long": TimedOut("it took longer than 4 s"), 1: (0, 1), 2: (0, 2)}
    assert isinstance(results["long"], Died)
    assert (tmp_path / "cleaned").read_text() == "long"


@pytest.mark.parametrize("workers", [0, 1])
def test_jobs_are_taken_when_a_worker_is_free_and_may_be_waited_for(workers: int) -> None:
    ended: list[object] = []

    def jobs() -> Iterator[object]:
        yield 1
        while not ended:
            yield Wait(0.05)
        # Only what came of the first tells that there is a second.
        yield ended[0]

    for _, result in run_jobs(jobs(), double, (5,), workers=workers):
        ended.append(result)
    assert ended == [7, 19]


def test_a_job_ends_with_its_parent(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to end them."""
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
os.environ["CLEANED"] = {str(tmp_path / "cleaned")!r}
from test_worker_processes import slow
from fommctl.workers import run_jobs

def tell(job, done, total):
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    list(run_jobs(["long"], slow, (0,), workers=1, tell=tell))
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
