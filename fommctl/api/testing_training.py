"""The contract of a backend that trains, as `fommctl.api.testing` has those of all plugins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fommctl.api.promises import BrokenPromiseError
from fommctl.api.promises import promise as _promise
from fommctl.api.specs import BackendSpec
from fommctl.api.training import BaseTrainParams, PhaseResult, ThinPlateTransform, TrainingBatch, TrainingPhase, trains

BATCH = 2


def check_training(
    spec: BackendSpec,
    model_params: Mapping[str, Any],
    train_params: Mapping[str, Any],
    frame_shape: tuple[int, int, int] = (64, 64, 3),
) -> None:
    """train_params: as in a preset, with `perceptual_network: none`; others: see `fommctl.api.testing.check_backend`.

    Two steps on the CPU, and the forward passes of one under autocast to bf16: every phase gives finite scalar losses,
    their gradients reach what its optimisers train, each weight belongs to one optimiser, every optimiser changes
    something, and one seed gives one result. Raises AssertionError with the promise that was broken.
    """
    schema = spec.sections().get("train_params", BaseTrainParams)
    params = schema.model_validate(dict(train_params))
    first, second = (_losses(spec, model_params, params, frame_shape) for _ in range(2))
    _promise(first == second, "the same seed gives the same losses")
    _check_half(spec, model_params, params, frame_shape)


def _check_half(
    spec: BackendSpec, model_params: Mapping[str, Any], params: Any, frame_shape: tuple[int, int, int]
) -> None:
    """`train` does so where bf16 is fast."""
    backend: Any = spec.build(spec.schema().model_validate(dict(model_params)))
    batch, generated = _batch(frame_shape, 0), None
    for phase in backend.training(params, None):
        with torch.autocast("cpu", torch.bfloat16):
            try:
                result: PhaseResult = phase.module.train()(batch, generated)
            except RuntimeError as error:
                raise BrokenPromiseError("a step works under autocast to bf16", str(error)) from error
        generated = result.generated
        for name, loss in result.losses.items():
            value = float(loss.detach())
            _promise(math.isfinite(value), f"the loss '{name}' is finite under autocast to bf16", value)


def _losses(
    spec: BackendSpec, model_params: Mapping[str, Any], params: Any, frame_shape: tuple[int, int, int]
) -> list[float]:
    torch.manual_seed(0)
    backend: Any = spec.build(spec.schema().model_validate(dict(model_params)))
    _promise(trains(backend), "the backend has a method training()")
    phases: list[TrainingPhase] = list(backend.training(params, None))
    _check_optimisers(phases)
    losses = []
    for number in range(2):
        batch, generated = _batch(frame_shape, number), None
        for phase in phases:
            result, values = _step(phase, batch, generated)
            generated = result.generated
            losses += values
    return losses


def _check_optimisers(phases: list[TrainingPhase]) -> None:
    names = [name for phase in phases for name in phase.optimisers]
    _promise(bool(names) and len(set(names)) == len(names), "every optimiser has a name of its own", names)
    _promise(
        all(name.startswith("optimizer_") for name in names), "optimisers are named optimizer_*, as published", names
    )
    trained: set[int] = set()
    for phase in phases:
        own = {id(parameter) for parameter in phase.module.parameters() if parameter.requires_grad}
        for optimiser in phase.optimisers.values():
            held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
            _promise(not held & trained, "each weight belongs to one optimiser")
            trained |= held
            _promise(held <= own, f"the module of the phase '{phase.name}' registers what its optimisers train")
            own -= held
        _promise(not own, f"the module of the phase '{phase.name}' registers nothing else that learns")


def _step(phase: TrainingPhase, batch: TrainingBatch, generated: Any) -> tuple[PhaseResult, list[float]]:
    result: PhaseResult = phase.module.train()(batch, generated)
    _promise(bool(result.losses), f"the phase '{phase.name}' has losses")
    for name, loss in result.losses.items():
        _promise(loss.dim() == 0 and bool(loss.isfinite()), f"the loss '{name}' is a finite scalar", loss)
    if result.view is not None:
        shapes = {tuple(frames.shape) for frames in (result.view.source, result.view.driving, result.view.prediction)}
        _promise(shapes == {tuple(batch.source.shape)}, "a view shows frames of the size of the batch", sorted(shapes))
    for optimiser in phase.optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    torch.stack(list(result.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, optimiser in phase.optimisers.items():
        held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        before = [parameter.detach().clone() for parameter in held]
        optimiser.step()
        moved = any(not old.equal(new) for old, new in zip(before, held, strict=True))
        _promise(moved, f"a step of {name} changes weights")
    return result, [float(loss.detach()) for loss in result.losses.values()]


def _batch(frame_shape: tuple[int, int, int], seed: int) -> TrainingBatch:
    height, width, channels = frame_shape
    random = torch.Generator().manual_seed(seed)
    source, driving = (torch.rand(BATCH, channels, height, width, generator=random) for _ in range(2))
    transform = ThinPlateTransform.random(BATCH, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=random)
    return TrainingBatch(source, driving, transform)
