"""Batches that are stopped, killed, limited, or run at the same time: nothing is half-written or done twice."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import command_line
import distributions
import pytest
from batches import GATE, alive, hidden, lines, start, states, until, words, worker_of, write_jobs
from forked_commands import ForkedCommand

PATIENCE_S = 90
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    distributions.install(folder, GATE, name="gate", entry="gate")
    return folder


def jobs_of(folder: Path, count: int = 3) -> Path:
    return write_jobs(
        folder, [{"source": "a.png", "driving": f"d{1 + n % 3}.mp4", "output": f"{n}.mkv"} for n in range(count)]
    )


def at_the_gate(folder: Path, process: ForkedCommand, name: str) -> int:
    """Wait until the job is in the middle of its frames; return its worker."""
    until(lambda: any(f".{name}.fommctl-" in each for each in hidden(folder)) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    worker = worker_of(process.pid)
    assert worker is not None
    return worker


def told_to_leave(worker: int) -> bool:
    """Return whether the process has received SIGTERM; it ignores a second one."""
    try:
        status = (Path("/proc") / str(worker) / "status").read_text()
    except OSError:
        return True
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
def test_a_batch_that_is_stopped_or_killed_loses_the_job_at_work(
    folder: Path, site: Path, run_beside: Callable[..., command_line.Result]
) -> None:
    """Three times during the same job; the next run continues with it each time."""
    jobs, before = jobs_of(folder), [("0.mkv", "started"), ("0.mkv", "done")]
    for number in (signal.SIGTERM, signal.SIGINT):
        (folder / "1.mkv.gate").touch()
        process = start(jobs, "--json", path=site)
        worker = at_the_gate(folder, process, "1")
        process.send_signal(number)
        # Signals do not reach the plugin's filter; its job is cleaned up when the filter returns.
        until(lambda worker=worker: told_to_leave(worker))
        (folder / "1.mkv.gate").unlink()
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, stderr
        assert json.loads(stdout)["error"]["message"] == "interrupted"
        assert "Traceback" not in stderr
        assert not alive(worker)
        assert not hidden(folder)
        before += [("1.mkv", "started"), ("1.mkv", "interrupted")]
        assert states(folder) == before
    (folder / "1.mkv.gate").touch()
    process = start(jobs, path=site)
    worker = at_the_gate(folder, process, "1")
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    until(lambda: not alive(worker))
    # A killed process leaves at most a torn line.
    with (folder / "status.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-')
    (folder / "1.mkv.gate").unlink()
    plan = run_beside(*words(jobs, "--dry-run", "--json")).json()["plan"]
    assert [row["reason"] for row in plan] == ["done before", "interrupted", "new"]
    again = run_beside(*words(jobs, "--json"), path=site)
    assert again.json().get("counts") == {"done": 2, "kept": 1, "failed": 0, "not started": 0}, again
    assert not hidden(folder)


def test_a_worker_that_is_killed_costs_its_job_a_second_try(folder: Path, site: Path) -> None:
    jobs = jobs_of(folder, 2)
    (folder / "0.mkv.gate").touch()
    process = start(jobs, "--json", path=site)
    os.kill(at_the_gate(folder, process, "0"), signal.SIGKILL)
    (folder / "0.mkv.gate").unlink()
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert [(job["state"], job["attempts"]) for job in json.loads(stdout)["jobs"]] == [("done", 2), ("done", 1)]
    assert (
        "killed by SIGKILL"
        in next(line for line in lines(folder) if line["state"] == "interrupted")["error"]["message"]
    )
    assert not hidden(folder)


def test_two_batches_at_once_share_the_jobs(folder: Path) -> None:
    jobs = jobs_of(folder, 6)
    both = [start(jobs, "--json") for _ in range(2)]
    told = []
    for process in both:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
        told.append(json.loads(stdout)["counts"])
    assert Counter(states(folder)) == {(f"{n}.mkv", state): 1 for n in range(6) for state in ("started", "done")}
    assert sum(counts["done"] for counts in told) == 6
    assert all(counts["done"] + counts["kept"] == 6 for counts in told)


def test_a_full_disk_ends_the_batch(folder: Path) -> None:
    """A limit on file sizes simulates it; the status file is smaller."""
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d1.mp4", "output": f"{n}.mkv"} for n in range(3)])
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000))
    with ForkedCommand(*words(jobs, "--json"), limit=small) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, stderr
    error = json.loads(stdout)["error"]
    assert error["message"].startswith("the disk is full")
    assert "goes on where this stopped" in error["hint"]
    assert states(folder) == [("0.mkv", "started"), ("0.mkv", "failed")]
    assert not hidden(folder)
    assert not list(folder.glob("*.mkv"))
