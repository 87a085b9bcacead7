"""A worker of a Ray cluster, without the cluster; test_ray.py tests it with one."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from batches import GOLDEN, write_shots

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.jobs import Job
from fommctl.batch.ray import RayWorker
from fommctl.workers import Done, Failed

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE = ModelChoice(
    model=str(GOLDEN / "vox-tiny.pth.tar"), preset=str(GOLDEN / "vox-tiny.model_params.yaml"), device="cpu",
    precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shots(tmp_path_factory.mktemp("shots"), frames=24)


def job_of(folder: Path, output: Path, choice: ModelChoice = CHOICE, **changes: Any) -> Job:
    options = {"source": folder / "a.png", "driving": folder / "d1.mp4", "crop": "none", "output": output, **changes}
    return Job(number=1, where="line 1", config=AnimateConfig(**options), choice=choice)


def test_a_divided_job_is_the_file_of_a_whole_one(shots: Path, tmp_path: Path) -> None:
    worker, parts = RayWorker("cpu", 1), tmp_path / "parts"
    whole = worker.render_job(job_of(shots, tmp_path / "whole.mkv"))
    motion = worker.make_motion(job_of(shots, tmp_path / "divided.mkv"), 3, 1, parts)
    assert isinstance(whole, Done)
    assert isinstance(motion, Done)
    divided, ranges = motion.result
    assert len(ranges) == 3
    rendered = [worker.render_range(divided, frames) for frames in reversed(ranges)]
    outcome = worker.encode(divided, *(each.result for each in rendered if isinstance(each, Done)))
    assert isinstance(outcome, Done)
    assert outcome.result.result["frames"] == whole.result.result["frames"] == 24
    assert (tmp_path / "divided.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_what_a_worker_cannot_see_is_named_with_its_machine(shots: Path, tmp_path: Path) -> None:
    worker = RayWorker("cpu", 1)
    cases: dict[Path, dict[str, Any]] = {
        shots / "gone.png": {"source": shots / "gone.png"},
        shots / "gone.mp4": {"driving": shots / "gone.mp4"},
        shots / "gone/%03d.png": {"driving": shots / "gone/%03d.png"},
        tmp_path / "gone": {"output": tmp_path / "gone/a.mkv"},
        tmp_path / "far": {"output": tmp_path / "far/gone/%03d.png"},
        tmp_path / "model.pth.tar": {"choice": ModelChoice(model=str(tmp_path / "model.pth.tar"))},
    }
    for path, changes in cases.items():
        job = job_of(shots, **{"output": tmp_path / "a.mkv", **changes})
        for outcome in (worker.render_job(job), worker.make_motion(job, 2, 1, tmp_path / "parts")):
            assert isinstance(outcome, Failed)
            assert outcome.message == f"{path} is not visible on {platform.node()}"
            assert "storage" in (outcome.hint or "")


def test_a_worker_stops_at_the_next_frames(shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = RayWorker("cpu", 1)
    report = worker._report

    def stopped(done: int, total: int | None) -> None:
        worker.stop()
        report(done, total)

    monkeypatch.setattr(worker, "_report", stopped)
    assert isinstance(worker.render_job(job_of(shots, tmp_path / "1.mkv")), Failed)
    assert worker.progress()[0] > 0
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(worker, "_report", report)
    assert isinstance(worker.render_job(job_of(shots, tmp_path / "1.mkv")), Done)
