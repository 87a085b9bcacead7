"""`fommctl train` as users run it: killed, stopped, resumed, and its models used."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
import training_runs
from forked_commands import ForkedCommand
from media_factory import moving_square, write_frames
from PIL import Image
from training_runs import COSINE, assert_same_checkpoint, assert_same_model, config, lines, names

from fommctl.train.config import TrainConfig
from fommctl.train.run_folder import step_checkpoint

Run = Callable[..., command_line.Result]
LONG = (*COSINE, "train_params.num_epochs=6")
STEPS = 18
WAIT_S = 120
RUN_FILES = [
    ".fommctl-training",
    ".lock",
    "checkpoints",
    "metrics.jsonl",
    "model.safetensors",
    "preset.yaml",
    "tensorboard",
]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(training_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = command_line.run_inside(*training_runs.arguments(config(training_clips, out, sets=LONG)))
    assert result.code == 0, result.stderr
    return out


def started(own: TrainConfig) -> ForkedCommand:
    return ForkedCommand(*training_runs.arguments(own), "--json")


def wait_for_lines(out: Path, count: int, process: ForkedCommand) -> None:
    until = time.monotonic() + WAIT_S
    path = out / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_then_stopped_a_run_continues_bit_for_bit(
    training_clips: Path, whole: Path, tmp_path: Path, run_cli: Run
) -> None:
    """Also with different numbers of workers, which change nothing."""
    own = config(training_clips, tmp_path / "run", sets=LONG, resume="auto")
    steps = random.randint(1, 8)
    with started(replace(own, workers=2)) as process:
        wait_for_lines(own.out, steps, process)
        process.kill()
        process.communicate()
    before = len((own.out / "metrics.jsonl").read_bytes().splitlines())
    with started(own) as process:
        # First cut back to the last checkpoint, at most two steps; then at least one new step.
        wait_for_lines(own.out, before + 1, process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, stderr
    error = json.loads(stdout)["error"]
    done = len(lines(own.out))
    newest = step_checkpoint(own.out, done)
    assert error["message"] == f"stopped after {done} of {STEPS} steps; {newest} is written"
    assert "--resume auto" in error["hint"]
    assert newest.exists()
    result = run_cli(*training_runs.arguments(own), "--json")
    assert result.code == 0, result.stderr
    assert lines(own.out) == lines(whole), f"killed after {steps} steps, stopped after {done}"
    assert_same_checkpoint(step_checkpoint(own.out, STEPS), step_checkpoint(whole, STEPS))
    assert_same_model(own.out / "model.safetensors", whole / "model.safetensors")
    assert names(own.out) == names(whole) == RUN_FILES


def test_the_result_and_the_texts(
    training_clips: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = training_runs.arguments(config(training_clips, Path("unused")))
    words[words.index("--out") : words.index("--out") + 2] = []
    result = run_cli(*words, "--max-steps", "1", "--json")
    assert result.code == 0, result.stderr
    out = Path("runs/smoke")
    (line,) = lines(out)
    assert result.json() == {
        "run": str(out),
        "steps": 1,
        "epoch": 0,
        "losses": line["losses"],
        "validation_l1": line["validation_l1"],
        "model": str(out / "model.safetensors"),
        "checkpoint": str(step_checkpoint(out, 1)),
    }
    assert result.stderr.startswith("step 1/1; epoch 0; gen_gan ")
    stopped = run_cli(*words, "--resume", "auto", "--max-time", "0.001s")
    assert stopped.code == 0
    assert (
        stopped.stdout == f"stopped after 2 steps: resume with --resume auto\ncheckpoint: {step_checkpoint(out, 2)}\n"
    )
    refused = run_cli(*words)
    assert refused.code == 2
    assert "--resume auto" in refused.stderr
    done = run_cli(*words, "--resume", "auto", "--max-steps", "2", "--quiet")
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def media(tmp_path: Path) -> list[str]:
    """A source and driving frames for models of 32 pixels."""
    Image.fromarray(moving_square(0, 32, 32)).save(tmp_path / "source.png")
    write_frames(tmp_path / "driving", [moving_square(index, 32, 32) for index in range(3)])
    return [str(tmp_path / "source.png"), str(tmp_path / "driving")]


def test_all_that_a_run_writes_animates_and_can_be_exported_and_imported(
    whole: Path, tmp_path: Path, media: list[str], run_cli: Run
) -> None:
    def frames(*model: str | Path) -> np.ndarray:
        folder = tmp_path / f"frames{len(list(tmp_path.iterdir()))}"
        words = ("--crop", "none", "--device", "cpu", "--precision", "fp32", "-o", folder / "%05d.png")
        result = run_cli("animate", *media, "--model", *model, *words, "--json")
        assert result.code == 0, result.stderr
        assert result.json()["frames"] == 3
        return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])

    wanted = frames(whole / "model.safetensors")
    assert wanted.shape == (3, 32, 32, 3)
    newest = step_checkpoint(whole, STEPS)
    assert np.array_equal(frames(newest), wanted)
    exported = tmp_path / "published.pth.tar"
    result = run_cli("models", "export", newest, "-o", exported, "--json")
    assert result.code == 0, result.stderr
    assert (result.json()["networks"], result.json()["epoch"]) == (["generator", "kp_detector", "discriminator"], 6)
    content = torch.load(exported, weights_only=True)
    assert list(content) == ["generator", "kp_detector", "discriminator", "epoch"]
    assert np.array_equal(frames(exported, "--preset", whole / "preset.yaml"), wanted)
    assert run_cli("models", "import", newest, "--name", "mine").code == 0
    assert np.array_equal(frames("mine"), wanted)
    shown = run_cli("models", "show", "mine", "--json").json()
    assert shown["training"] == {"epoch": 6}
    assert "num_epochs: 6" in shown["preset_text"]


def test_fine_tuning_reports_the_weights_that_it_uses(
    training_clips: Path, whole: Path, tmp_path: Path, run_cli: Run
) -> None:
    own = replace(config(training_clips, tmp_path / "run"), init_from=str(whole / "model.safetensors"))
    words = [*training_runs.arguments(own), "--init-from", str(own.init_from), "--max-steps", "1"]
    result = run_cli(*words)
    assert result.code == 0, result.stderr
    assert "tensors taken; these start anew: discriminator" in result.stderr
