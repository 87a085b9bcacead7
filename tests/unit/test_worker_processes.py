"""Jobs in processes of their own: every job has its result, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from fommctl.stages.worker_processes import Died, Tell, run_jobs


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
