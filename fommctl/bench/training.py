"""Measures training steps in the precision that `train` chooses against fp32 steps, in turns in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fommctl.api.training import TrainingBatch, trains
from fommctl.bench.config import PAIRS, BenchConfig
from fommctl.bench.run import PLAIN, Report, random_backend, smooth_pictures
from fommctl.errors import UsageError
from fommctl.host import Host, load_host
from fommctl.models.perceptual import load_perceptual
from fommctl.models.precision import choose_training_precision
from fommctl.networks.inference.devices import resolve_device
from fommctl.networks.losses import ThinPlateTransform
from fommctl.networks.perceptual import PerceptualNetwork, Vgg19Features
from fommctl.presets.config import check_seed
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import BaseTrainParams, Preset
from fommctl.train.step import TrainingStep

BATCH_ON_CPU = 4
"""Default pairs per step on a CPU; elsewhere the preset's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPathResult:
    """Speed and deviation of training in one precision."""

    samples_per_second: float
    ratio: float
    """Speed relative to plain fp32 steps in the same run."""
    loss_deviation: float
    """Relative deviation of the first step's total loss from that of the plain fp32 step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBenchResult:
    """The result of `fommctl bench --train`."""

    preset: str
    device: str
    batch_size: int
    threads: int
    auto_precision: str
    """Precision that `--precision auto` chooses on this device."""
    perceptual_network: str
    paths: Mapping[str, TrainingPathResult]
    """Results by path: `plain`, and the chosen precision."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        paths = {
            name: {key: float(f"{value:.6g}") for key, value in asdict(path).items()}
            for name, path in self.paths.items()
        }
        return {**{name: getattr(self, name) for name in self.__slots__}, "paths": paths}


def run(config: BenchConfig, host: Host | None = None, *, report: Report | None = None) -> TrainingBenchResult:
    """Measure training steps of a preset's model; VGG-19 has random weights, so that nothing is downloaded.

    config.frames is the number of pairs for each path.  Raises UsageError or MissingError for a preset, device or
    precision that is not available, or a backend that cannot be trained.
    """
    check_seed(config.seed)
    device = resolve_device(config.device)
    chosen = choose_training_precision(config.precision, device)
    host = load_host() if host is None else host
    preset = load_preset(config.preset, host, sets=config.sets)
    params: BaseTrainParams = preset.section("train_params")
    batch_size = config.batch_size or (BATCH_ON_CPU if device.type == "cpu" else params.batch_size)
    paths = {PLAIN: _Path(preset, host, config.seed, device, "fp32")}
    if chosen != "fp32":
        paths[chosen] = _Path(preset, host, config.seed, device, chosen)
    batch = _batch(preset, batch_size, config.seed, device)
    for path in paths.values():
        path.start(batch)
    rounds = max(3, math.ceil((config.frames or PAIRS) / batch_size))
    for index in range(rounds):
        for path in paths.values():
            path.take_time(batch)
        if report:
            report((index + 1) * batch_size, rounds * batch_size)
    return TrainingBenchResult(
        preset=preset.name,
        device=str(device),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        auto_precision=choose_training_precision("auto", device),
        perceptual_network=params.features or "none",
        paths={name: path.result(paths[PLAIN], batch_size) for name, path in paths.items()},
    )


class _Path:
    """Networks that are trained in one precision, with the times of their steps."""

    def __init__(self, preset: Preset, host: Host, seed: int, device: torch.device, precision: str) -> None:
        backend = random_backend(preset, host, seed)
        if not trains(backend):
            raise UsageError(f"{preset.backend} networks cannot be trained", "Choose another --preset.")
        params = preset.section("train_params")
        network = _perceptual(params, seed)
        self._step = TrainingStep(backend, params, device, precision, perceptual=network)
        self._device = device
        self._seconds: list[float] = []
        self._first_loss = 0.0

    def start(self, batch: TrainingBatch) -> None:
        """Run one step, so that preparations in the first one do not count."""
        self._first_loss = sum(self._step(batch).losses.values())

    def take_time(self, batch: TrainingBatch) -> None:
        """Run one step and record its time."""
        began = time.perf_counter()
        self._step(batch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._seconds.append(time.perf_counter() - began)

    def result(self, plain: _Path, batch_size: int) -> TrainingPathResult:
        """Return speed (medians over the steps) and deviation relative to the plain path."""
        seconds, reference = statistics.median(self._seconds), statistics.median(plain._seconds)
        return TrainingPathResult(
            samples_per_second=batch_size / seconds,
            ratio=reference / seconds,
            loss_deviation=abs(self._first_loss / plain._first_loss - 1),
        )


def _batch(preset: Preset, size: int, seed: int, device: torch.device) -> TrainingBatch:
    """Return random pairs with transforms, and with landmarks if the preset's training needs them."""
    params: BaseTrainParams = preset.section("train_params")
    generator = torch.Generator().manual_seed(seed)
    transform = ThinPlateTransform.random(size, **params.transform_params.model_dump(), generator=generator)
    landmarks = None
    if params.landmarks is not None:
        means = (*params.landmarks.points, *(params.landmarks.focus_points or ()))
        count = 1 + max(number for numbers in means for number in numbers)
        landmarks = (torch.rand(size, count, 2, generator=generator) * 2 - 1).to(device)
    source, driving = (smooth_pictures(size, preset.frame_shape, seed + number).to(device) for number in (1, 2))
    return TrainingBatch(source, driving, transform.to(source), landmarks, landmarks)


def _perceptual(params: BaseTrainParams, seed: int) -> PerceptualNetwork | None:
    if params.features != "vgg19":
        return load_perceptual(params.features or "none")
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for number, inputs, outputs in Vgg19Features.LAYERS:
        scale = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{number}.weight"] = scale * torch.randn(outputs, inputs, 3, 3, generator=generator)
        weights[f"features.{number}.bias"] = torch.zeros(outputs)
    return Vgg19Features(weights)
