"""Building everything that a run needs before its first step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

from fommctl.api.protocols import Backend
from fommctl.api.specs import BackendSpec, DetectorSpec
from fommctl.api.training import TrainableBackend, trains
from fommctl.datasets.clips import Clip, find_clips
from fommctl.errors import MissingError, ModelError, UsageError
from fommctl.host import Host, why_not_ready
from fommctl.models.loading import build_backend, fixed_buffers, locate, read_model
from fommctl.models.perceptual import load_perceptual
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import BaseTrainParams, DatasetParams, Preset
from fommctl.train.distributed import Processes
from fommctl.train.pairs import KeptLandmarks, Landmarks, TrainingPairs, steps_per_epoch
from fommctl.train.step import Schedule, TrainingStep, WeightAverage

if TYPE_CHECKING:
    from fommctl.host import Host
    from fommctl.train.config import TrainConfig


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InitReport:
    """Tensors that a run took from a model, and those that are newly initialised, by their names `group/name`."""

    taken: tuple[str, ...]
    left: tuple[str, ...]
    """Newly initialised weights, which the model lacks or has in another shape."""

    def __str__(self) -> str:
        start = f"{len(self.taken)} of {len(self.taken) + len(self.left)} tensors taken"
        return f"{start}; these start anew: {', '.join(self._left())}" if self.left else start

    def _left(self) -> list[str]:
        """Return the names of what was left out; a network of which nothing was taken by its own name."""
        found = {name.partition("/")[0] for name in self.taken}
        return list(
            dict.fromkeys(name if name.partition("/")[0] in found else name.partition("/")[0] for name in self.left)
        )


def initialise(backend: Backend, spec: BackendSpec, model: str, host: Host) -> InitReport:
    """Copy every tensor of `model` (a name of the registry or a path) that fits by name and shape into the networks,
    statistics of BatchNorm included.

    Raises ModelError where no weight fits, and what reading a model raises.
    """
    given = read_model(locate(model, host), spec).groups
    taken: list[str] = []
    left: list[str] = []
    fits = False
    for group, module in backend.modules().items():
        fixed = fixed_buffers(module)
        for name, tensor in module.state_dict().items():
            # Buffers that follow from the architecture, such as the downsampling filter, are not learned.
            if name in fixed:
                continue
            other = given.get(group, {}).get(name)
            if other is None or other.shape != tensor.shape:
                left.append(f"{group}/{name}")
                continue
            with torch.no_grad():
                tensor.copy_(other)
            taken.append(f"{group}/{name}")
            # Counters and biases fit networks of any width.
            fits |= tensor.dim() > 1
    if not fits:
        raise ModelError(
            f"no weight of {model} fits this preset",
            "Use a model of the same architecture, or the preset that it was trained with.",
        )
    return InitReport(tuple(taken), tuple(left))


@dataclass(frozen=True)
class Setup:
    """Everything that a run needs for training."""

    preset: Preset
    spec: BackendSpec
    params: BaseTrainParams
    backend: TrainableBackend
    step: TrainingStep
    average: WeightAverage | None
    pairs: TrainingPairs
    validation: tuple[Clip, ...]
    schedule: Schedule
    device: torch.device
    precision: str


def build(
    config: TrainConfig,
    host: Host,
    device: torch.device,
    precision: str,
    processes: Processes,
    seed: int,
    *,
    fresh: bool,
) -> Setup:
    """Build networks, data and optimisers, and so find errors in preset, data and packages before anything is written.

    fresh: the run starts at its first step; otherwise its weights come from a checkpoint.
    """
    preset = load_preset(config.preset, host, sets=config.sets)
    params: BaseTrainParams = preset.section("train_params" if config.stage is None else f"train_{config.stage}_params")
    dataset: DatasetParams = preset.section("dataset_params")
    spec: BackendSpec = host.find("backend", preset.backend)
    pairs = TrainingPairs(
        find_clips(config.data, "train"),
        dataset,
        repeats=params.num_repeats,
        seed=seed,
        **_landmarks(params, dataset, host),  # type: ignore[arg-type]
    )
    schedule = Schedule(params, steps_per_epoch(pairs, params.batch_size), config.max_steps)
    torch.manual_seed(seed)
    backend = build_backend(spec, preset.model_params)
    if not trains(backend):
        raise UsageError(f"the backend '{spec.name}' cannot be trained", "Use a preset of another backend.")
    if config.init_from is not None and fresh:
        taken = initialise(backend, spec, config.init_from, host)
        log.log(logging.WARNING if taken.left else logging.INFO, "%s: %s", config.init_from, taken)
    perceptual = None if params.features is None else load_perceptual(params.features)
    processes.synchronise_statistics(backend.modules())
    step = TrainingStep(
        backend,
        params,
        device,
        precision,
        perceptual=perceptual,
        parallel=processes.parallel,
        mean=processes.mean,
    )
    averaged = {name: backend.modules()[name] for name in backend.needed_groups()}
    average = None if params.ema_decay is None else WeightAverage(averaged, params.ema_decay)
    validation = tuple(clip for clip in find_clips(config.data, "test") if not clip.still)
    return Setup(preset, spec, params, backend, step, average, pairs, validation, schedule, device, precision)


def _landmarks(params: BaseTrainParams, dataset: DatasetParams, host: Host) -> dict[str, object]:
    guidance = params.landmarks
    if guidance is None:
        if dataset.expressions is not None:
            raise UsageError(
                "dataset_params.expressions needs the detector of train_params.guidance",
                "Give losses of guidance, spans or focus a weight, or leave the expressions out.",
            )
        return {}
    spec: DetectorSpec = host.find("detector", guidance.detector)
    reason = why_not_ready(spec)
    if reason is not None:
        weights = getattr(params, "loss_weights", None)
        without = [
            f"--set train_params.loss_weights.{name}=0"
            for name in ("guidance", "spans", "focus")
            if getattr(weights, name, None)
        ]
        # They are told apart by the detector's landmarks.
        without += ["--set dataset_params.expressions=null"] if dataset.expressions is not None else []
        raise MissingError(
            f"the detector '{spec.name}' that guides the training is not ready: {reason}",
            f"Install what is missing, or train without: {' '.join(without)}",
        )
    find = Landmarks(spec)
    asked = {
        "train_params.guidance.points": guidance.points,
        "train_params.guidance.focus_points": guidance.focus_points or (),
        "dataset_params.expressions.distances": () if dataset.expressions is None else dataset.expressions.distances,
    }
    for key, numbers in asked.items():
        highest = max(chain.from_iterable(numbers), default=0)
        if highest >= spec.landmarks:
            raise UsageError(
                f"the detector '{spec.name}' gives {spec.landmarks} landmarks, number {highest} is asked for",
                f"Correct {key}.",
            )
    kept = None if dataset.expressions is None else KeptLandmarks(find, spec.landmarks, spec.name)
    return {"landmarks": find, "landmark_count": spec.landmarks, "kept": kept}
