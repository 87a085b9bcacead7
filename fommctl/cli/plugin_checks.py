"""Runs the contract suites of `fommctl.api.testing` over one spec, for `fommctl plugins check`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api import testing
from fommctl.errors import FommctlError, InputError, MissingError
from fommctl.host import Host
from fommctl.presets import Preset, load_preset, preset_names

if TYPE_CHECKING:
    from fommctl.api.specs import BackendSpec

KINDS = ("backend", "dataset", "detector", "embedder", "metric", "preset", "command")
"""Those that have a suite; weights are checked when they are pulled or read."""


@dataclass(frozen=True)
class Check:
    """How one spec did."""

    kind: str
    name: str
    problem: str | None = None
    """The promise that was broken, or what was raised."""
    note: str | None = None
    """Why it was not checked, or not wholly."""


def check(kind: str, name: str, host: Host, data: Path | None = None) -> Check:
    """The contract suite of this kind (of KINDS) over this spec; data: the folder for data sets on disk."""
    suites: dict[str, Callable[[], str | None]] = {
        "backend": lambda: _backend(name, host),
        "detector": lambda: _detector(name, host),
        "embedder": lambda: _embedder(name, host),
        "dataset": lambda: _dataset(name, host, data),
        "metric": lambda: _metric(name, host),
        "command": lambda: testing.check_command(host.find(kind, name)),
        "preset": lambda: _preset(name, host),
    }
    try:
        return Check(kind, name, note=suites[kind]())
    except AssertionError as error:
        return Check(kind, name, problem=f"broken promise: {error}")
    except FommctlError as error:
        return Check(kind, name, problem=f"{error.message} ({error.hint})" if error.hint else error.message)
    except Exception as error:
        return Check(kind, name, problem=f"{type(error).__name__}: {error}")


def _backend(name: str, host: Host) -> str | None:
    """With the preset of this backend that has the smallest frames, and among those the smallest networks."""
    presets = [preset for each in preset_names(host) if (preset := load_preset(each, host)).backend == name]
    if not presets:
        return "not checked: no preset has this backend; call fommctl.api.testing.check_backend with model_params"
    spec = host.find("backend", name)
    smallest = min(each.frame_shape for each in presets)
    preset = min((each for each in presets if each.frame_shape == smallest), key=lambda each: _weights(spec, each))
    model_params = preset.model_params.model_dump()
    testing.check_backend(spec, model_params, preset.frame_shape)
    return _training(spec, preset, model_params)


def _weights(spec: "BackendSpec", preset: Preset) -> int:
    networks = spec.build(preset.model_params).modules().values()
    return sum(weights.numel() for network in networks for weights in network.parameters())


def _training(spec: "BackendSpec", preset: Preset, model_params: dict[str, Any]) -> str | None:
    from fommctl.api.testing_training import check_training
    from fommctl.api.training import trains

    if not trains(spec.build(preset.model_params)):
        return "it does not train"
    if "train_params" not in preset.sections:
        return f"training not checked: the preset {preset.name} has no train_params"
    check_training(spec, model_params, preset.section("train_params").model_dump(), preset.frame_shape)
    return None


def _detector(name: str, host: Host) -> str | None:
    spec = host.find("detector", name)
    testing.check_detector(spec)
    reason = spec.ready()
    return f"not checked: {reason}" if reason else None


def _embedder(name: str, host: Host) -> str | None:
    spec = host.find("embedder", name)
    testing.check_embedder(spec)
    reason = spec.ready()
    return f"not checked: {reason}" if reason else None


def _metric(name: str, host: Host) -> str | None:
    from fommctl.api.testing_metrics import check_metric

    spec = host.find("metric", name)
    check_metric(spec)
    try:
        spec.build()
    except MissingError as error:
        return f"not checked: {error.message}"
    return None


def _dataset(name: str, host: Host, data: Path | None) -> str | None:
    spec = host.find("dataset", name)
    if data is None:
        with tempfile.TemporaryDirectory() as empty:
            try:
                next(iter(spec.build().clips(Path(empty))), None)
            except (InputError, MissingError):
                return "not checked: name a folder in its raw layout with --data"
    testing.check_dataset(spec, data)
    return None


def _preset(name: str, host: Host) -> str | None:
    load_preset(name, host)
    return None
