"""Files written by an earlier version are still read: sidecar, status file, training run, clips of `crop` and others.
They are in tests/fixtures/house and are never rewritten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_clips
from command_line import Result
from crop_shots import BLOBS
from media_factory import moving_square, write_frames
from written_media import frames

Run = Callable[..., Result]
FILES = Path(__file__).parent / "fixtures" / "house"
PLACE = "@HOUSE@"
EXACT = ("--device", "cpu", "--precision", "fp32")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the files, with their new path in them and with the modification times that they record, to the current
    folder, where they were when written."""
    folder = tmp_path / "house"
    shutil.copytree(FILES, folder)
    for path in (folder / "batch/status.jsonl", folder / "crop/out/.crop.jsonl"):
        path.write_text(path.read_text().replace(PLACE, str(folder)))
    for line in json_lines(folder / "batch/status.jsonl"):
        if line["state"] == "done":
            set_time(folder / "batch" / line["output"], line["mtime_ns"])
    set_time(folder / "crop/blobs.mp4", json_lines(folder / "crop/out/.crop.jsonl")[-1]["stamp"][1])
    monkeypatch.chdir(folder)
    return folder


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def set_time(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and modification time of every file."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def done(result: Result) -> Any:
    assert result.code == 0, result.stdout + result.stderr
    return result.json()


def test_a_sidecar_renders_the_same_again(house: Path, run_cli: Run) -> None:
    """Rendering is identical bit for bit with the sidecar's versions and processor, and fails if nothing explains a
    difference."""
    recorded = json.loads((house / "animate/result.mkv.json").read_text())
    data = done(run_cli("animate", "--from-sidecar", "animate/result.mkv.json", "-o", "again.mkv", "--json"))
    again = data["reproduction"]
    assert again["recorded_sha256"] == recorded["output"]["sha256"]
    assert again["identical"] or again["differences"]
    same = ("frames", "fps", "width", "height", "audio", "model", "preset", "device", "precision", "motion")
    assert {key: data[key] for key in same} == {key: recorded["result"][key] for key in same}
    wanted, found = (np.stack(frames(house / name)).astype(int) for name in ("animate/result.mkv", "again.mkv"))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.5


def test_a_sidecar_belongs_to_its_result(house: Path, run_cli: Run) -> None:
    recorded = json.loads((house / "animate/result.mkv.json").read_text())
    data = done(run_cli("inspect", "animate/result.mkv", "--json"))
    assert data["synthetic"] is True
    assert data["sidecar"]["fits"] is True
    assert data["statement"]["digital_source_type"] == recorded["digital_source_type"]
    assert data["statement"]["tool"] == {"version": "0.1.0", "model": "model", "preset": "house-tiny"}


def test_a_status_file_keeps_what_is_done(house: Path, run_cli: Run) -> None:
    words = ("batch", "batch/jobs.jsonl", "--model", "training/run/model.safetensors", *EXACT, "--default", "crop=none")
    plan = done(run_cli(*words, "--dry-run", "--json"))["plan"]
    assert [(Path(row["output"]).name, row["runs"]) for row in plan] == [("one.mkv", False), ("two.mkv", True)]
    before = content(house / "batch/out")
    data = done(run_cli(*words, "--workers", "0", "--json"))
    assert data["counts"] == {"done": 1, "kept": 1, "failed": 0, "not started": 0}
    assert content(house / "batch/out").items() >= before.items()
    # The killed job has the inputs and options of the sidecar, and so the frames of its result.
    wanted, found = (np.stack(frames(house / name)).astype(int) for name in ("animate/result.mkv", "batch/out/two.mkv"))
    assert np.abs(found - wanted).mean() < 0.5
    assert done(run_cli(*words, "--json"))["counts"]["kept"] == 2


@pytest.mark.parametrize("change", [("--default", "smooth=yes"), ("--seed", "1")], ids=["smooth", "seed"])
def test_a_status_file_shows_what_changed(house: Path, run_cli: Run, change: tuple[str, ...]) -> None:
    words = ("batch", "batch/jobs.jsonl", "--model", "training/run/model.safetensors", *EXACT, "--default", "crop=none")
    plan = done(run_cli(*words, *change, "--dry-run", "--json"))["plan"]
    assert plan[0]["reason"] == "changed: options"


def test_a_run_continues(house: Path, tmp_path: Path, run_cli: Run) -> None:
    """The losses are those of a run that the earlier version completed."""
    clips, run = tmp_path / "clips", house / "training/run"
    for split, count in (("train", 6), ("test", 1)):
        for clip in range(count):
            pictures = [moving_square(3 * clip + index, 32, 32) for index in range(6)]
            write_frames(clips / split / f"{split}{clip}#0", pictures)
    shutil.copy(run / "preset.yaml", house / "tiny.yaml")
    words = ("train", "--preset", "tiny.yaml", "--data", clips, "--out", "training/run", *EXACT)
    data = done(run_cli(*words, "--workers", "0", "--pictures-every", "0", "--resume", "auto", "--json"))
    assert data["steps"] == 6
    found, wanted = json_lines(run / "metrics.jsonl"), json_lines(house / "training/whole.jsonl")
    assert [line["step"] for line in found] == list(range(6))
    for line, whole in zip(found, wanted, strict=True):
        assert line.keys() == whole.keys()
        assert line["epoch"] == whole["epoch"]
        assert line["losses"] == pytest.approx(whole["losses"], rel=1e-3)
        for key in line.keys() & {"learning_rate", "validation_l1", "norm_optimizer_generator"}:
            assert line[key] == pytest.approx(whole[key], rel=1e-3)
    assert (run / "model.safetensors").is_file()


def test_a_folder_of_crop_is_up_to_date(house: Path, run_cli: Run, third_party: Callable[..., None]) -> None:
    third_party(BLOBS, name="blob-plugin", entry="blobs")
    recorded = json.loads((house / "crop/out/manifest.json").read_text())
    clip = house / "crop/out/blobs#track0.mp4"
    before = clip.read_bytes(), clip.stat().st_mtime_ns
    words = ("crop", "crop/blobs.mp4", "-o", "crop/out", "--detector", "blobs", "--workers", "1", "--json")
    data = done(run_cli(*words, "--size", "64"))
    assert data["skipped"] == ["crop/blobs.mp4"]
    assert (clip.read_bytes(), clip.stat().st_mtime_ns) == before
    assert json.loads((house / "crop/out/manifest.json").read_text()) == recorded
    # Other options are noticed.
    assert done(run_cli(*words, "--size", "32"))["skipped"] == []


def test_a_folder_of_preprocess_is_complete(house: Path, run_cli: Run, third_party: Callable[..., None]) -> None:
    third_party(raw_clips.PLUGIN, name="fommctl-planned", entry="planned")
    words = ("preprocess", "planned", "preprocess/raw", "-o", "preprocess/out", "--format", "png", "--workers", "0")
    before = content(house / "preprocess/out")
    manifest = str(house / "preprocess/out/manifest.jsonl")
    for more in ((), ("--verify",)):
        data = done(run_cli(*words, "--size", "16", *more, "--json"))
        assert (data["written"], data["kept"]) == (0, 2)
        after = content(house / "preprocess/out")
        assert {Path(name).name for name in after.keys() - before.keys()} == {".fommctl-preprocess"}
        assert all(after[name] == before[name] for name in before if name != manifest)
        assert after[manifest][0] == before[manifest][0]
    # Other options are noticed.
    assert done(run_cli(*words, "--size", "8", "--json"))["written"] == 2
