"""The contract suite of backends that train: the built-in backends pass, broken ones fail."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from fommctl.api.testing_backend import check_training
from fommctl.api.training import TrainingPhase
from fommctl.host import Host
from fommctl.presets.preset import load_preset


def given(host: Host) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    preset = load_preset("smoke", host)
    return (
        host.find("backend", preset.backend),
        preset.model_params.model_dump(),
        preset.section("train_params").model_dump(),
    )


def test_ours_keeps_it(host: Host) -> None:
    check_training(*given(host))


class Broken:
    """The FOMM backend with modified phases."""

    def __init__(self, backend: Any, change: Any) -> None:
        self.backend, self.change = backend, change

    def training(self, params: Any, perceptual: Any) -> Any:
        return self.change(list(self.backend.training(params, perceptual)))


def idle(phases: list[TrainingPhase]) -> list[TrainingPhase]:
    for optimiser in phases[0].optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = 0.0
    return phases


def lacking(phases: list[TrainingPhase]) -> list[TrainingPhase]:
    kept = dict(list(phases[0].optimisers.items())[:1])
    return [replace(phases[0], optimisers=kept), *phases[1:]]


class Exact(torch.nn.Module):
    """A phase that mixes types where autocast gives some of them half precision."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: Any, generated: Any) -> Any:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        torch.ones(2, 2).index_add_(0, torch.tensor([0]), product[:1])
        return self.inner(batch, generated)


def exact(phases: list[TrainingPhase]) -> list[TrainingPhase]:
    return [replace(phases[0], module=Exact(phases[0].module)), *phases[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exact, r"a step works under autocast to bf16 \(got "),
        (idle, "changes weights"),
        (lacking, "registers no other trainable weights"),
        (lambda phases: [phases[0], *phases], "unique names"),
    ],
)
def test_broken_promises_are_named(change: Any, message: str, host: Host) -> None:
    spec, model_params, train_params = given(host)
    broken = replace(spec, build=lambda params: Broken(spec.build(params), change))
    with pytest.raises(AssertionError, match=message):
        check_training(broken, model_params, train_params)


def test_a_backend_without_training_is_reported(host: Host) -> None:
    spec, model_params, train_params = given(host)
    with pytest.raises(AssertionError, match="training"):
        check_training(replace(spec, build=lambda params: torch.nn.Identity()), model_params, train_params)
