"""Monkey-Net by the commands: the published vectors through `animate`, a training run, and the use of its model."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from media_factory import moving_square, write_frames
from monkeynet_models import MODEL, PRESET, arrays, narrow_params
from PIL import Image

MODES = {"absolute": ("--motion", "absolute"), "relative": ("--no-adapt-scale",)}


@pytest.fixture(scope="module")
def golden_frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    stored = {
        key: np.round(values.numpy().transpose(0, 2, 3, 1) * 255)
        for key, values in arrays().items()
        if values.ndim == 4
    }
    Image.fromarray(stored["source"][0].astype(np.uint8)).save(folder / "source.png")
    (folder / "driving").mkdir()
    for index, frame in enumerate(stored["driving"]):
        Image.fromarray(frame.astype(np.uint8)).save(folder / "driving" / f"{index:03d}.png")
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_published_vectors(golden_frames: Path, mode, run_cli, tmp_path: Path):
    result = run_cli(
        "animate", golden_frames / "source.png", golden_frames / "driving", "-o", tmp_path / "out" / "%03d.png",
        "--crop", "none", "--model", MODEL, "--preset", PRESET, "--precision", "fp32", "--json", *MODES[mode],
    )  # fmt: skip
    assert result.code == 0, result.stderr
    expected = arrays()[f"prediction_{mode}"].numpy().transpose(0, 2, 3, 1) * 255
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == len(expected) == result.json()["frames"]
    for path, frame in zip(written, expected, strict=True):
        difference = np.abs(np.asarray(Image.open(path), np.float32) - frame)
        assert difference.max() <= 1.0, path  # one level, including rounding of the result


@pytest.mark.slow
def test_a_run_and_its_model(run_cli, tmp_path: Path):
    for split, count in (("train", 4), ("test", 1)):
        for clip in range(count):
            write_frames(
                tmp_path / "data" / split / f"{split}{clip}#0", [moving_square(3 * clip + i, 32, 32) for i in range(6)]
            )
    preset = {
        "backend": "monkeynet",
        "dataset_params": {"frame_shape": [32, 32, 3]},
        "model_params": narrow_params(),
        "train_params": {
            "num_epochs": 10, "batch_size": 4, "lr": 2e-3, "loss_weights": {"reconstruction": [10, 10, 1]},
        },
    }  # fmt: skip
    path = tmp_path / "narrow.yaml"
    path.write_text(yaml.safe_dump(preset))
    run = tmp_path / "run"
    result = run_cli(
        "train", "--preset", path, "--data", tmp_path / "data", "-o", run, "--device", "cpu", "--precision", "fp32",
        "--workers", 0, "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    losses = [json.loads(line)["losses"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(losses[0]) == {"reconstruction", "reconstruction_1", "reconstruction_2", "gen_gan", "disc_gan"}
    assert losses[-1]["reconstruction"] < 0.9 * losses[0]["reconstruction"]
    folder = tmp_path / "data" / "test" / "test0#0"
    source = min(folder.iterdir())
    animated = run_cli(
        "animate", source, folder, "-o", tmp_path / "out.mp4", "--crop", "none", "--model", run / "model.safetensors",
        "--json",
    )  # fmt: skip
    assert animated.code == 0, animated.stderr
    assert animated.json()["frames"] == 6
