"""Runs the contract suites of `fommctl.api.testing` over one spec, for `fommctl plugins check`."""

import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fommctl
from fommctl.api import testing
from fommctl.api.promises import BrokenPromiseError
from fommctl.errors import FommctlError, InputError, MissingError
from fommctl.host import Host
from fommctl.presets.preset import Preset, load_preset, preset_names

if TYPE_CHECKING:
    from fommctl.api.specs import BackendSpec

SUITES: Mapping[str, str] = {
    "backend": "fommctl.api.testing.check_backend and fommctl.api.testing_training.check_training",
    "dataset": "fommctl.api.testing.check_dataset",
    "detector": "fommctl.api.testing.check_detector",
    "embedder": "fommctl.api.testing.check_embedder",
    "metric": "fommctl.api.testing_metrics.check_metric",
    "preset": "fommctl presets show",
    "command": "fommctl.api.testing.check_command",
}
"""What repeats the check, by kind, for those kinds that have one; weights are checked when they are pulled or read."""


@dataclass(frozen=True)
class Check:
    """How one spec did, or the plugin itself in one respect."""

    kind: str
    """Of SUITES; `plugin` for what is no spec."""
    name: str
    problem: str | None = None
    """The promise that was broken, or what was raised."""
    note: str | None = None
    """Why it was not checked, or not wholly."""
    got: str | None = None
    """What came in place of what was promised."""
    where: str | None = None
    """The line of the plugin that raised."""
    advice: str | None = None
    """What to do."""
    read: str | None = None
    """The section of the guide."""
    repeat: str | None = None
    """What runs this check alone."""
    traceback: str | None = None


def guide() -> Path:
    """The guide for plugin authors: inside the package in a wheel, among the plugins in a source tree."""
    package = Path(fommctl.__file__).parent
    packed = package / "_plugin_guide.md"
    return packed if packed.is_file() else package.parent / "plugins" / "README.md"


def check(kind: str, name: str, host: Host, data: Path | None = None) -> Check:
    """The contract suite of this kind (of SUITES) over this spec; data: the folder for data sets on disk."""
    suites: dict[str, Callable[[], str | None]] = {
        "backend": lambda: _backend(name, host),
        "detector": lambda: _detector(name, host),
        "embedder": lambda: _embedder(name, host),
        "dataset": lambda: _dataset(name, host, data),
        "metric": lambda: _metric(name, host),
        "command": lambda: testing.check_command(host.find(kind, name)),
        "preset": lambda: _preset(name, host),
    }
    more: dict[str, Any] = {"read": f"fommctl_{kind}s", "repeat": SUITES[kind]}
    try:
        return Check(kind, name, note=suites[kind]())
    except BrokenPromiseError as error:
        return Check(kind, name, problem=f"broken promise: {error.promise}", got=error.got, **more)
    except FommctlError as error:
        more |= {"advice": error.hint, "traceback": _text(error)}
        return Check(kind, name, problem=error.message, where=_place(error), **more)
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        return Check(kind, name, problem=problem, where=_place(error), traceback=_text(error), **more)


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _place(error: BaseException) -> str | None:
    """The last line outside fommctl and the libraries that led to the error; None where there is none."""
    ours = Path(fommctl.__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not Path(frame.filename).is_relative_to(ours) and "<" not in frame.filename
    ]
    # A library that the plugin calls is where it was raised, not where it has to be mended.
    own = [frame for frame in frames if not _LIBRARIES.intersection(Path(frame.filename).parts)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else None


_LIBRARIES = {"site-packages", "dist-packages"}


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
