"""`fommctl batch --engine ray` on a real Ray with two workers: results, lost and repeated work, leftovers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import command_line
import distributions
import pytest
from batches import EXACT, TINY, alive, hidden, states, until, words, write_jobs, write_shots
from forked_commands import ForkedCommand
from ray_clusters import GATE, RunningRay, processes, running_ray

import fommctl.batch.ray

PATIENCE_S = 120
FRAMES = 24
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only shots."""
    return write_shots(tmp_path_factory.mktemp("shots"), frames=FRAMES)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRay]:
    """A cluster with a plugin that holds jobs up."""
    site = tmp_path_factory.mktemp("site")
    distributions.install(site, GATE, name="gate", entry="gate")
    with running_ray(PYTHONPATH=str(site), FOMMCTL_OFFLINE="1") as ray:
        yield ray


def at_the_gate(output: Path) -> int:
    """Wait for the process that is held up at this output, and return its id."""
    file = output.with_name(f"{output.name}.gate.process")
    until(lambda: file.exists() and file.read_text().endswith("\n"), PATIENCE_S)
    number = int(file.read_text())
    file.unlink()
    return number


def begin(cluster: RunningRay, jobs: Path, *more: str) -> ForkedCommand:
    ray = ("--engine", "ray", "--address", cluster.address, "--workers", "2", "--json")
    return ForkedCommand(*words(jobs, *ray, *more), limit=impatient, **cluster.environment)


def impatient() -> None:
    """Give workers that hang at the gate less time to clean up."""
    fommctl.batch.ray.PATIENCE = 2


def ended(process: ForkedCommand, code: int = 0) -> dict:
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, stderr
    assert stdout.count("\n") == 1
    return json.loads(stdout)


def alone(run_cli, folder: Path, driving: str, *more: str) -> bytes:
    """The file that `animate` writes."""
    target = folder / f"alone-{driving}.mkv"
    result = run_cli(
        "animate", folder / "a.png", folder / driving, "-o", target, "--crop", "none", *TINY, *EXACT, *more
    )
    assert result.code == 0, result.stderr
    data = target.read_bytes()
    target.unlink()
    return data


def test_a_ray_of_its_own_renders_what_animate_renders_and_is_gone_afterwards(folder, run_cli, tmp_path):
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d?.mp4", "output": "{driving.stem}.mkv"}])
    (tmp_path / "home").mkdir()
    temporary = Path("/tmp") / f"t{os.getpid()}"
    temporary.mkdir()
    try:
        result = command_line.run_process(
            *words(jobs, "--engine", "ray", "--workers", "2", "--split", "3", "--json"),
            OMP_NUM_THREADS="1", HOME=str(tmp_path / "home"), TMPDIR=str(temporary),
        )  # fmt: skip
        assert result.code == 0, result.stderr
        assert result.json()["counts"]["done"] == 3
        left = [command for pid, command in processes() if str(temporary).encode() in command]
        assert left == []
        assert list(temporary.iterdir()) == []
    finally:
        shutil.rmtree(temporary)
    for name in ("d1", "d2", "d3"):
        assert (folder / f"{name}.mkv").read_bytes() == alone(run_cli, folder, f"{name}.mp4")
    assert hidden(folder) == []
    assert list((tmp_path / "home").iterdir()) == []
    assert "ray" not in result.stderr.lower()


def test_a_worker_that_is_killed_costs_nothing_but_its_time(cluster, folder, run_cli):
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d?.mp4", "output": "{driving.stem}.mkv"}])
    (folder / "d2.mkv.gate").touch()
    process = begin(cluster, jobs)
    # The others finish meanwhile, so that only the one at the gate is running.
    until(lambda: states(folder).count(("d1.mkv", "done")) + states(folder).count(("d3.mkv", "done")) == 2, PATIENCE_S)
    os.kill(at_the_gate(folder / "d2.mkv"), signal.SIGKILL)
    # Ray starts the worker again and repeats the job.
    at_the_gate(folder / "d2.mkv")
    (folder / "d2.mkv.gate").unlink()
    result = ended(process)
    assert [job["attempts"] for job in result["jobs"]] == [1, 1, 1]
    assert Counter(states(folder)) == {(f"d{n}.mkv", state): 1 for n in (1, 2, 3) for state in ("started", "done")}
    for name in ("d1", "d2", "d3"):
        assert (folder / f"{name}.mkv").read_bytes() == alone(run_cli, folder, f"{name}.mp4")
    assert hidden(folder) == []


def test_a_range_whose_worker_is_killed_is_rendered_again(cluster, folder, run_cli):
    """The job does not notice: sound, times and frames are those of a single run."""
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d1.mp4", "output": "d1.mkv", "smooth": True}])
    (folder / "d1.mkv.gate").touch()
    process = begin(cluster, jobs, "--split", "4", "--workers", "1")
    os.kill(at_the_gate(folder / "d1.mkv"), signal.SIGKILL)
    (folder / "d1.mkv.gate").unlink()
    result = ended(process)
    assert [job["attempts"] for job in result["jobs"]] == [1]
    assert states(folder) == [("d1.mkv", "started"), ("d1.mkv", "done")]
    assert (folder / "d1.mkv").read_bytes() == alone(run_cli, folder, "d1.mp4", "--smooth")
    assert hidden(folder) == []


def test_a_batch_that_is_stopped_leaves_nothing_and_ray_alone(cluster, folder):
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d1.mp4", "output": "d1.mkv"}])
    (folder / "d1.mkv.gate").touch()
    process = begin(cluster, jobs, "--split", "3", "--workers", "1")
    worker = at_the_gate(folder / "d1.mkv")
    process.send_signal(signal.SIGTERM)
    error = ended(process, 130)
    assert error["error"]["exit_code"] == 130
    assert states(folder) == [("d1.mkv", "started"), ("d1.mkv", "interrupted")]
    assert hidden(folder) == []
    assert not alive(worker)
    assert alive(cluster.head.pid)


def test_a_job_that_takes_too_long_is_stopped(cluster, folder):
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d1.mp4", "output": "1.mkv"}])
    (folder / "1.mkv.gate").touch()
    result = ended(begin(cluster, jobs, "--timeout", "2", "--workers", "1"), 6)
    assert [job["state"] for job in result["jobs"]] == ["failed"]
    assert "longer than 2 s" in result["jobs"][0]["reason"]
    assert hidden(folder) == []
