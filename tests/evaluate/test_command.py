"""`fommctl evaluate` with models on clips: results, what is kept, and errors."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_data import METRICS, pictures, square_clip, write_clips, write_model
from forked_commands import ForkedCommand
from media_factory import write_frames

import fommctl
from fommctl.host import load_host
from fommctl.networks.grids import to_tensor

INSIDE = ("--workers", "0", "--device", "cpu", "--no-videos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips and two models; read-only."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_clips(folder / "data")
    for seed, name in enumerate(("a", "b")):
        write_model(folder / f"{name}.safetensors", load_host(), seed)
    return folder


def reconstructed(model: Path, clip: Path) -> np.ndarray:
    """Return the frames of the renderer alone, one by one, (N, H, W, 3) in [0, 1]."""
    renderer = fommctl.load(model, device="cpu", precision="fp32").renderer()
    frames = [to_tensor([frame], renderer.device) for frame in pictures(clip)]
    context = renderer.encode_source(frames[0])
    return torch.cat([renderer.render(context, renderer.detect(frame)) for frame in frames]).numpy()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_reconstruction_is_scored_as_published(folder, run_cli, tmp_path):
    model, out = folder / "a.safetensors", tmp_path / "out"
    result = run_cli(
        "evaluate", "--model", model, "--data", folder / "data", "--metrics", METRICS, "-o", out, *INSIDE, "--json"
    )
    assert result.code == 0, result.stderr
    data = result.json()
    errors = []
    for number in range(3):
        clip = folder / f"data/test/person{number}#0"
        truth = pictures(clip).transpose(0, 3, 1, 2) / 255
        errors.append(np.abs(reconstructed(model, clip) - truth).mean(axis=(1, 2, 3)))
    assert data["model"] == "a"
    assert (data["clips"], data["frames"]) == (3, 31)
    score = data["metrics"]["l1.paper"]
    # Over all frames of all clips, before rounding to 8 bits.
    assert score["mean"] == pytest.approx(np.concatenate(errors).mean(), abs=1e-6)
    assert score["ci95"][0] < score["mean"] < score["ci95"][1]
    assert (score["frames"], score["coverage"], score["clips"]) == (31, 1.0, 3)
    rows = [row for row in table(out / "metrics.csv") if row["clip"] == "person1#0"]
    assert [row["frame"] for row in rows] == ["", *map(str, range(20))]
    np.testing.assert_allclose([float(row["l1.paper"]) for row in rows[1:]], errors[1], atol=1e-6)
    assert float(rows[0]["l1.paper"]) == pytest.approx(errors[1].mean(), abs=1e-6)
    assert json.loads((out / "summary.json").read_text())["metrics"] == data["metrics"]
    assert "num_kp: 5" in (out / "configuration.yaml").read_text()
    assert (out / "report.html").is_file()


def test_two_models_are_ranked_on_the_same_clips(folder, run_cli, tmp_path):
    models = f"{folder / 'a.safetensors'},{folder / 'b.safetensors'}"
    out = tmp_path / "out"
    command = ("evaluate", "--models", models, "--data", folder / "data", "--metrics", METRICS, "-o", out, *INSIDE)
    result = run_cli(*command, "--json")
    assert result.code == 0, result.stderr
    data = result.json()
    means = {name: entry["metrics"]["l1.paper"]["mean"] for name, entry in data["models"].items()}
    assert data["ranking"]["l1.paper"] == sorted(means, key=means.get)
    assert data["ranking"]["psnr"] == sorted(means, key=lambda name: -data["models"][name]["metrics"]["psnr"]["mean"])
    difference = next(each for each in data["differences"] if each["metric"] == "l1.paper")
    assert (difference["model"], difference["minus"]) == ("a", "b")
    assert difference["mean"] == pytest.approx(means["a"] - means["b"])
    assert difference["ci95"][0] <= difference["mean"] <= difference["ci95"][1]
    own = ("--metrics", "keypoint-jitter", "--keypoints", "model", "--max-clips", "1", "--json")
    assert any("cannot be compared" in text for text in run_cli(*command, *own).json()["warnings"])
    shown = run_cli(*command)
    assert "6 already scored" in " ".join(shown.stdout.replace("\n", " ").split())
    assert all(name in shown.stdout for name in ("l1.paper ↓", "psnr ↑", "95%", "100%"))


def test_a_second_run_scores_only_what_is_missing(folder, run_cli, tmp_path):
    out, data = tmp_path / "out", write_clips(tmp_path / "data")
    command = ("evaluate", "--model", folder / "a.safetensors", "--data", data, "-o", out, *INSIDE, "--json")
    first = run_cli(*command, "--metrics", "l1.paper")
    stored = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert len(stored) == 3
    again = run_cli(*command, "--metrics", "l1.paper")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")} == stored
    assert again.json()["metrics"] == first.json()["metrics"]
    # One metric is added to existing ones, and another clip is scored again.
    write_frames(data / "test/person0#0", square_clip(6, 9))
    more = run_cli(*command, "--metrics", "l1.paper,psnr").json()
    assert more["metrics"]["l1.paper"]["mean"] != first.json()["metrics"]["l1.paper"]["mean"]
    fresh = run_cli(*command[:5], "-o", tmp_path / "fresh", *command[7:], "--metrics", "l1.paper,psnr").json()
    assert more["metrics"] == fresh["metrics"]


@pytest.mark.parametrize("save", ["png", "mkv"])
def test_saved_predictions_score_the_same_as_finished_results(folder, run_cli, tmp_path, save):
    out = tmp_path / "out"
    own = run_cli(
        "evaluate", "--model", folder / "a.safetensors", "--data", folder / "data", "--metrics", METRICS,
        "--save", save, "-o", out, *INSIDE, "--json",
    )  # fmt: skip
    assert own.code == 0, own.stderr
    result = run_cli(
        "evaluate", "--pred", out / "predictions/a", "--truth", folder / "data", "--metrics", METRICS,
        "-o", tmp_path / "scores", "--workers", "0", "--no-videos", "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    for name in ("l1.strict", "psnr"):
        assert result.json()["metrics"][name] == own.json()["metrics"][name]
    # What was rounded to 8 bits differs slightly from the model's result.
    difference = abs(result.json()["metrics"]["l1.paper"]["mean"] - own.json()["metrics"]["l1.paper"]["mean"])
    assert 0 < difference < 1 / 255


def test_animation_of_other_identities(folder, run_cli, tmp_path):
    out = tmp_path / "out"
    command = ("evaluate", "--model", folder / "a.safetensors", "--data", folder / "data", "--mode", "animation")
    jitter = ("--metrics", "keypoint-jitter.plain", "--keypoints", "model")
    result = run_cli(*command, "-o", out, *INSIDE, *jitter, "--save", "png", "--json")
    assert result.code == 0, result.stderr
    data = result.json()
    # As many pairs as in the preset, of different identities.
    assert data["clips"] == 2
    names = sorted(path.name for path in (out / "predictions/a").iterdir())
    assert all(name.split("--")[0] != name.split("--")[1] for name in names)
    again = run_cli(*command, "-o", tmp_path / "again", *INSIDE, *jitter, "--json").json()
    assert again["metrics"] == data["metrics"]
    assert sorted(path.stem for path in (tmp_path / "again/clips/a").iterdir()) == names
    # The pictures are those of `animate` without the search for faces.
    (tmp_path / "pairs.csv").write_text("source,driving\nperson2#0,person0#0\n")
    pairs = ("--pairs", tmp_path / "pairs.csv", "-o", tmp_path / "listed")
    listed = run_cli(*command, *pairs, *INSIDE, *jitter, "--save", "png", "--json")
    assert (listed.json()["clips"], listed.json()["frames"]) == (1, 6)
    animator = fommctl.load(folder / "a.safetensors", device="cpu", precision="fp32")
    source, driving = (pictures(folder / f"data/test/person{number}#0") for number in (2, 0))
    frames = list(animator.frames(source[0], driving, motion="relative", adapt_scale=False))
    np.testing.assert_array_equal(pictures(tmp_path / "listed/predictions/a/person2#0--person0#0"), frames)


def test_an_animation_is_held_against_its_driving_clip(folder, run_cli, tmp_path):
    command = ("evaluate", "--model", folder / "a.safetensors", "--data", folder / "data", "--mode", "animation")
    asked = ("--metrics", "mouth", "--keypoints", "model", "-o", tmp_path / "out")
    result = run_cli(*command, *INSIDE, *asked, "--json")
    # The model's own keypoints are not a face's: the metrics are asked for, but can measure nothing.
    assert result.code == 0, result.stderr
    assert not result.json()["failed"]
    assert {name: found["mean"] for name, found in result.json()["metrics"].items()} == {
        "mouth.correlation": None,
        "mouth.gain": None,
    }


def test_the_output_is_no_other_folder(folder, run_cli, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    for out, message in (
        (tmp_path / "mine", "contains no evaluation"),
        (folder / "data/x", "inside the folder of the clips"),
    ):
        result = run_cli("evaluate", "--data", folder / "data", "--metrics", "psnr", "-o", out)
        assert (result.code, message in result.stderr) == (2, True)


def test_a_broken_clip_does_not_stop_the_others(folder, run_cli, tmp_path):
    data = write_clips(tmp_path / "data")
    for path in (data / "test/person1#0").iterdir():
        path.write_bytes(b"no picture")
    (data / "test/x#0.mp4").write_bytes(b"no video")
    command = ("evaluate", "--model", folder / "a.safetensors", "--data", data, "--metrics", "psnr", *INSIDE)
    result = run_cli(*command, "-o", tmp_path / "out", "--json")
    assert result.code == 6, result.stderr
    assert result.json()["clips"] == 2
    assert [(each["model"], each["clip"]) for each in result.json()["failed"]] == [("a", "person1#0"), ("a", "x#0")]


def test_missing_metrics_are_named_and_the_rest_is_reported(folder, run_cli, tmp_path):
    result = run_cli(
        "evaluate", "--model", folder / "a.safetensors", "--data", folder / "data", "--metrics", "psnr,akd",
        "-o", tmp_path / "out", *INSIDE, "--json",
    )  # fmt: skip
    assert result.code == 5, result.stderr
    data = result.json()
    assert list(data["metrics"]) == ["psnr"]
    assert set(data["missing"]) == {"akd.paper", "akd.strict"}
    assert any("left out: akd.paper, akd.strict" in warning for warning in data["warnings"])


def test_data_without_splits_is_scored_as_a_whole_and_says_so(folder, run_cli, tmp_path):
    for number in range(2):
        write_frames(tmp_path / f"data/person{number}#0", square_clip(5, number))
    result = run_cli(
        "evaluate", "--model", folder / "a.safetensors", "--data", tmp_path / "data", "--metrics", "psnr",
        "--max-frames", "3", "-o", tmp_path / "out", *INSIDE, "--json",
    )  # fmt: skip
    assert (result.json()["clips"], result.json()["frames"]) == (2, 6)
    assert "no test split" in result.json()["warnings"][0]


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing_half_written_and_continues(folder, run_cli, tmp_path):
    data, out = write_clips(tmp_path / "data", (30, 250, 250)), tmp_path / "out"
    arguments = [
        "evaluate", "--model", str(folder / "a.safetensors"), "--data", str(data), "--metrics", "psnr", "--save", "mkv",
        "-o", str(out), "--workers", "2", "--device", "cpu", "--no-videos",
    ]  # fmt: skip
    process = ForkedCommand(*arguments)
    deadline = time.monotonic() + 120
    while not list(out.rglob("[!.]*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]
    finished = {path.stem for path in out.rglob("*.npz")}
    assert finished
    assert {path.stem for path in out.rglob("*.mkv")} >= finished
    result = run_cli(*arguments, "--max-frames", "30", "--workers", "0", "--json")
    assert result.code == 0, result.stderr
    assert result.json()["clips"] == 3


def test_true_keypoints_of_the_data_set_are_measured_with(folder, run_cli, tmp_path):
    data = tmp_path / "data"
    made = run_cli(
        "preprocess", "synthetic", "-o", data, "--size", "64", "--format", "png", "--limit", "4", "--workers", "0"
    )
    assert made.code == 0, made.stderr
    result = run_cli(
        "evaluate", "--model", folder / "a.safetensors", "--data", data, "--split", "all", "--max-frames", "6",
        "--max-clips", "2", "--metrics", "akd,mkr", "-o", tmp_path / "out", *INSIDE, "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    metrics = result.json()["metrics"]
    assert set(metrics) == {"akd.paper", "akd.strict", "mkr.paper", "mkr.strict"}
    # Noise instead of pictures: what should be found is missing, or far away.
    assert metrics["mkr.strict"]["mean"] > 0.2
    assert "keypoints: 'true'" in (tmp_path / "out/configuration.yaml").read_text()
    itself = run_cli(
        "evaluate", "--pred", data / "train", "--truth", data / "train", "--max-frames", "6",
        "--max-clips", "2", "--metrics", "akd,mkr", "-o", tmp_path / "same", "--workers", "0", "--no-videos", "--json",
    )  # fmt: skip
    assert itself.code == 0, itself.stderr
    assert itself.json()["metrics"]["akd.strict"]["mean"] == pytest.approx(0, abs=0.01)
    assert itself.json()["metrics"]["mkr.strict"]["mean"] == 0
