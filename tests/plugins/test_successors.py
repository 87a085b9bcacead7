"""TPSMM and LivePortrait in everything that runs models: one table of commands for both."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from forked_workers import ForkedWorkers
from media_factory import write_frames
from PIL import Image
from tpsmm_models import TINY, narrow_resnets
from written_media import frames as frames_of

import fommctl
from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.jobs import Job
from fommctl.batch.ray import RayWorker
from fommctl.bench.config import BenchConfig
from fommctl.bench.run import run as run_bench
from fommctl.host import load_host
from fommctl.models.checkpoint import write_native
from fommctl.presets.preset import load_preset
from fommctl.workers import Done

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 5
PREPARED = ("--crop", "none", "--device", "cpu", "--precision", "fp32", "--json")


@dataclass(frozen=True)
class Family:
    """A small model with random weights, and its inputs."""

    name: str
    folder: Path
    preset: str
    side: int
    """Size of the results."""

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def inputs(self) -> tuple[Path, Path]:
        return self.folder / "source.png", self.folder / "driving"


def picture(seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(points).resize((64, 64), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def resnets():
    with narrow_resnets():
        yield


@pytest.fixture(scope="module", params=["tpsmm", "liveportrait"])
def family(request, tmp_path_factory, resnets):
    folder, host = tmp_path_factory.mktemp(request.param), load_host()
    preset = folder / "small.yaml"
    if request.param == "tpsmm":
        shape = {"frame_shape": [64, 64, 3]}
        preset.write_text(yaml.safe_dump({"backend": "tpsmm", "dataset_params": shape, "model_params": TINY}))
    else:
        preset.write_text(load_preset("small-liveportrait", host).text())
    loaded = load_preset(str(preset), host)
    torch.manual_seed(0)
    networks = host.backends[request.param].build(loaded.model_params).modules()
    groups = {name: network.state_dict() for name, network in networks.items()}
    write_native(folder / "model.safetensors", groups, {"backend": request.param, "preset": loaded.text()})
    Image.fromarray(picture(0)).save(folder / "source.png")
    write_frames(folder / "driving", [picture(10 + index) for index in range(COUNT)])
    write_frames(folder / "data" / "test" / "clip", [picture(10 + index) for index in range(3)])
    return Family(request.param, folder, str(preset), 64 if request.param == "tpsmm" else 128)


@pytest.fixture(scope="module")
def whole(family, tmp_path_factory):
    """Return the frames of the whole result, rendered by the Python API."""
    out = tmp_path_factory.mktemp("whole") / "whole.mkv"
    animator = fommctl.load(family.model, device="cpu", precision="fp32")
    result = animator.animate(*family.inputs, out, crop="none")
    assert (result.frames, result.width, result.height) == (COUNT, family.side, family.side)
    return list(frames_of(out))


def equal(path: Path, expected: list[np.ndarray]) -> None:
    found = list(frames_of(path))
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_animate_with_a_sidecar_that_renders_it_again(family, whole, run_cli, tmp_path):
    out = tmp_path / "a.mkv"
    first = run_cli("animate", *family.inputs, "-o", out, "--model", family.model, "--sidecar", *PREPARED)
    assert first.code == 0, first.stdout
    equal(out, whole)
    (sidecar,) = tmp_path.glob("a*.json")
    again = run_cli("animate", "--from-sidecar", sidecar, "-o", tmp_path / "b.mkv", "--json")
    assert again.code == 0, again.stdout
    assert again.json()["reproduction"]["identical"]


def test_a_motion_file_and_a_part_of_it(family, whole, run_cli, tmp_path):
    motion, words = tmp_path / "take.motion", ("--model", family.model, *PREPARED)
    made = run_cli("animate", *family.inputs, "-o", tmp_path / "a.mkv", "--motion-out", motion, *words)
    assert made.code == 0, made.stdout
    part = run_cli("animate", family.inputs[0], motion, "-o", tmp_path / "b.mkv", "--frames", "3-4", *words)
    assert part.code == 0, part.stdout
    equal(tmp_path / "b.mkv", whole[2:4])


def test_a_video_as_source(family, run_cli, tmp_path):
    words = ("--source-video", "--model", family.model, *PREPARED)
    made = run_cli("animate", family.folder / "driving", family.inputs[1], "-o", tmp_path / "a.mkv", *words)
    assert made.code == 0, made.stdout
    assert made.json()["frames"] == COUNT


def test_batch(family, whole, run_cli, tmp_path):
    job = {"source": str(family.inputs[0]), "driving": str(family.inputs[1]), "output": str(tmp_path / "a.mkv")}
    (tmp_path / "jobs.jsonl").write_text(json.dumps({**job, "crop": "none"}))
    words = ("batch", tmp_path / "jobs.jsonl", "--model", family.model, "--device", "cpu", "--workers", 0, "--json")
    done = run_cli(*words, "--default", "precision=fp32")
    assert done.code == 0, done.stdout
    assert done.json()["counts"]["done"] == 1
    equal(tmp_path / "a.mkv", whole)
    assert run_cli(*words, "--default", "precision=fp32").json()["counts"]["kept"] == 1


def test_ranges_of_ray(family, whole, tmp_path):
    """The steps of a cluster's machines, whose values Ray passes on as pickles."""
    worker, source_driving = RayWorker("cpu", 1), dict(zip(("source", "driving"), family.inputs, strict=True))
    config = AnimateConfig(**source_driving, crop="none", output=tmp_path / "a.mkv", batch_size=1)
    choice = ModelChoice(model=str(family.model), device="cpu", precision="fp32")
    job = Job(number=1, where="line 1", config=config, choice=choice)
    motion = pickle.loads(pickle.dumps(worker.make_motion(job, 2, 1, tmp_path / "parts")))
    assert isinstance(motion, Done), motion
    divided, ranges = motion.result
    assert len(ranges) == 2
    rendered = [worker.render_range(divided, frames) for frames in reversed(ranges)]
    outcome = worker.encode(divided, *(each.result for each in rendered if isinstance(each, Done)))
    assert isinstance(outcome, Done), outcome
    # Frames of a batch and single frames differ by rounding.
    found = list(frames_of(tmp_path / "a.mkv"))
    assert [np.abs(one.astype(int) - other).max() <= 1 for one, other in zip(found, whole, strict=True)] == [
        True
    ] * COUNT


def test_evaluate(family, run_cli, tmp_path):
    words = ("--metrics", "l1.paper,psnr", "--no-videos", "--device", "cpu", "--json")
    done = run_cli(
        "evaluate", "--data", family.folder / "data", "-o", tmp_path / "out", "--model", family.model, *words
    )
    assert done.code == 0, done.stdout
    assert (tmp_path / "out" / "metrics.csv").is_file()


def test_bench(family, monkeypatch):
    monkeypatch.setattr("fommctl.bench.run.multiprocessing.get_context", lambda name: ForkedWorkers())
    config = BenchConfig(preset=family.preset, frames=1, batch_size=1, precision="fp32", device="cpu")
    found = run_bench(config).to_json()
    assert found["paths"]["fp32"]["error_max"] < 1e-3
    assert 0.5 < sum(found["shares"].values()) <= 1.01


def test_models_and_presets(family, run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path / "home"))
    kept = run_cli("models", "import", family.model, "--name", "mine", "--json")
    assert kept.code == 0, kept.stdout
    shown = run_cli("models", "show", "mine", "--json").json()
    assert shown["parameters"] > 1000
    exported = run_cli("models", "export", "mine", "-o", tmp_path / "again.pth", "--json")
    assert exported.code == 0, exported.stdout
    listed = {row["name"]: row for row in run_cli("models", "list", "--json").json()["models"]}
    assert listed["mine"]["status"] == "available"


def test_its_plugin_has_no_problem(family, run_cli):
    plugins = {row["name"]: row for row in run_cli("plugins", "list", "--json").json()["plugins"]}
    assert plugins[family.name]["problem"] is None
