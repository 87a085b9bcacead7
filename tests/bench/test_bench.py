"""Bench on a tiny model. Rates are only checked for consistency with each other."""

import pytest
import torch
from forked_workers import ForkedWorkers

from fommctl.bench import run as bench
from fommctl.bench import training as bench_training
from fommctl.bench.config import BenchConfig
from fommctl.bench.run import EndToEnd, random_backend, smooth_pictures
from fommctl.presets.preset import load_preset


@pytest.fixture(scope="module")
def result():
    seen = []

    def measure(preset, backend, host, device, precision):
        seen.append((preset.name, set(backend.modules()) >= {"generator", "kp_detector"}, str(device), precision))
        return EndToEnd(frames_per_second=3.0, of_model_rate=0.9, of_model_rate_720p=0.8)

    config = BenchConfig(preset="smoke", device="cpu", frames=6, batch_size=2)
    reports = []
    found = bench.run(config, end_to_end=measure, report=lambda done, total: reports.append((done, total)))
    assert seen == [("smoke", True, "cpu", found.auto_precision)]
    assert reports == [(2, 6), (4, 6), (6, 6)]
    return found


def test_every_path_is_compared_with_the_plain_loop(result):
    assert list(result.paths) == ["plain", "fp32", "bf16"]
    plain = result.paths["plain"]
    assert (plain.ratio, plain.error_max, plain.error_mean) == (1, 0, 0)
    for name, limit in (("fp32", 1e-3), ("bf16", 0.5)):
        path = result.paths[name]
        assert path.ratio == pytest.approx(path.frames_per_second / plain.frames_per_second)
        assert 0 < path.error_mean < path.error_max < limit
    assert result.paths["fp32"].error_max < result.paths["bf16"].error_max


def test_json_has_the_keys_of_the_contract(result):
    data = result.to_json()
    assert {"preset", "device", "paths", "end_to_end", "peak_memory_mb"} <= set(data)
    assert set(data["paths"]["fp32"]) == {"frames_per_second", "ratio", "error_max", "error_mean"}
    assert data["end_to_end"] == {"frames_per_second": 3.0, "of_model_rate": 0.9, "of_model_rate_720p": 0.8}
    assert 50 < data["peak_memory_mb"] < 1500


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(run_cli, monkeypatch, json_keys):
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench.multiprocessing, "get_context", lambda name: ForkedWorkers())
    arguments = ("bench", "--preset", "smoke", "--device", "cpu", "--precision", "fp32", "--frames", "2")
    data = run_cli(*arguments, "--json").json()
    assert list(data["paths"]) == ["plain", "fp32"]
    json_keys("bench", data)
    text = run_cli(*arguments, "--batch-size", "1")
    assert text.code == 0
    for word in ("smoke on cpu", "batches of 1", "frames/s", "plain", "fp32", "end to end", "peak memory"):
        assert word in text.stdout


def test_random_networks_are_the_same_for_a_seed_and_calibrated(host):
    preset = load_preset("smoke", host)
    first, again, other = (random_backend(preset, host, seed).modules()["generator"] for seed in (1, 1, 2))
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.final.weight, other.final.weight)
    assert first.first.norm.running_var.max() < 0.9
    assert not any(module.training for module in first.modules())


def test_smooth_pictures_are_smooth_and_in_range():
    pictures = smooth_pictures(2, (64, 32, 3), seed=0)
    assert pictures.shape == (2, 3, 64, 32)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures.diff(dim=2).abs().max() < 0.3


@pytest.fixture(scope="module")
def trained():
    reports = []
    config = BenchConfig(preset="smoke", device="cpu", precision="bf16", frames=6, batch_size=2)
    found = bench_training.run(config, report=lambda done, total: reports.append((done, total)))
    assert reports == [(2, 6), (4, 6), (6, 6)]
    return found


def test_training_is_compared_with_plain_steps(trained):
    assert list(trained.paths) == ["plain", "bf16"]
    plain, bf16 = trained.paths.values()
    assert (plain.ratio, plain.loss_deviation) == (1, 0)
    assert bf16.ratio == pytest.approx(bf16.samples_per_second / plain.samples_per_second)
    assert 0 < bf16.loss_deviation < 0.1
    assert trained.perceptual_network == "none"
    assert set(trained.to_json()) == {
        "preset",
        "device",
        "batch_size",
        "threads",
        "auto_precision",
        "perceptual_network",
        "paths",
    }
    assert set(trained.to_json()["paths"]["bf16"]) == {"samples_per_second", "ratio", "loss_deviation"}


def test_bench_of_training_needs_no_download(run_cli):
    arguments = ("bench", "--train", "--preset", "smoke", "--device", "cpu", "--precision", "fp32", "--frames", "1")
    vgg = ("--set", "train_params.loss_weights.perceptual=[1, 1, 1, 1, 1]", "--batch-size", "1")
    data = run_cli(*arguments, *vgg, "--json").json()
    assert data["perceptual_network"] == "vgg19"
    assert list(data["paths"]) == ["plain"]
    text = run_cli(*arguments)
    assert text.code == 0
    for word in ("training smoke on cpu", "batches of 4", "perceptual network none", "samples/s", "plain"):
        assert word in text.stdout


def test_a_precision_that_is_slower_is_reported(run_cli, monkeypatch):
    paths = {
        name: bench_training.TrainingPathResult(samples_per_second=1.0, ratio=ratio, loss_deviation=0.01)
        for name, ratio in (("plain", 1.0), ("bf16", 0.4))
    }
    slow = bench_training.TrainingBenchResult(
        preset="smoke",
        device="cpu",
        batch_size=2,
        threads=1,
        auto_precision="fp32",
        perceptual_network="none",
        paths=paths,
    )
    monkeypatch.setattr(bench_training, "run", lambda config, report: slow)
    told = run_cli("bench", "--train").stdout.splitlines()
    assert told[-1] == "bf16 is slower than plain fp32 here: train with --precision fp32"


@pytest.mark.parametrize("name", ["faces-mini", "smoke"])
def test_batches_have_all_landmarks_that_a_preset_names(host, name):
    preset = load_preset(name, host)
    guidance = preset.section("train_params").landmarks
    batch = bench_training._batch(preset, 1, 0, torch.device("cpu"))
    assert (batch.source_landmarks is None) == (guidance is None)
    for numbers in () if guidance is None else (*guidance.points, *(guidance.focus_points or ())):
        assert max(numbers) < batch.source_landmarks.shape[1]
