"""`fommctl plugins check`: whether a plugin meets its contracts, and what its author has to do where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl import __version__
from fommctl.api.specs import PROJECT
from fommctl.errors import FommctlError, InputError, MissingError, UsageError
from fommctl.host import RESTRICT

if TYPE_CHECKING:
    from fommctl.api.specs import BackendSpec
    from fommctl.host import Host, PluginInfo
    from fommctl.presets.sections import Preset

SUITES: Mapping[str, str] = {
    "backend": "fommctl.api.testing_backend.check_backend, check_training",
    "dataset": "fommctl.api.testing.check_dataset",
    "detector": "fommctl.api.testing.check_detector",
    "embedder": "fommctl.api.testing.check_embedder",
    "metric": "fommctl.api.testing.check_metric",
    "preset": "fommctl presets show",
    "command": "fommctl.api.testing.check_command",
}
"""Call that repeats the check, by kind; weights are checked when they are pulled or read."""
HEAVY = ("torch", "av")
"""Never loaded by importing a plugin or asking its hooks."""
SLOW_ONES = ("numpy", "scipy", "pandas", "cv2", "PIL", "matplotlib", "pydantic", "sklearn", "transformers")
"""Better not."""
SLOW = 0.5
"""Seconds of every command, after which it is said."""
LONGEST_SUMMARY = 120
"""Characters: what fits a line of a table."""
TIMEOUT = 120
_PROBE = """
import importlib, json, sys, time
import fommctl.host
before = set(sys.modules)
start = time.perf_counter()
importlib.import_module({module!r})
imported = time.perf_counter()
host = fommctl.host.load_host(check=False)
loaded = time.perf_counter()
host.plugins
asked = time.perf_counter()
new = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
print("\\n" + json.dumps({{"seconds": imported - start + asked - loaded, "new": new}}))
"""


@dataclass(frozen=True)
class Check:
    """How one spec did, or the plugin itself in one respect."""

    kind: str
    """Kind of SUITES; `plugin` for what is not a spec."""
    name: str
    problem: str | None = None
    """The promise that was broken, or what was raised."""
    note: str | None = None
    """Why it was not checked, or not wholly."""
    got: str | None = None
    """Value in place of the promised one."""
    where: str | None = None
    """The line of the plugin that raised."""
    advice: str | None = None
    """Remedy."""
    read: str | None = None
    """The section of the guide."""
    repeat: str | None = None
    """Command that runs this check alone."""
    traceback: str | None = None


def check_plugin(info: PluginInfo, host: Host, data: Path | None = None) -> list[Check]:
    """Check a plugin itself, and each of its specs by the contract suite of their kind.

    data: folder with raw data, for data sets that read files.
    """
    specs = [(kind, name) for kind in SUITES for name in info.registers.get(kind, ())]
    return [*check_package(info, host), *(check(kind, name, host, data) for kind, name in specs)]


def check(kind: str, name: str, host: Host, data: Path | None = None) -> Check:
    """Run the contract suite of this kind (of SUITES) over a spec.  data: the folder for data sets on disk."""
    from fommctl.api import testing
    from fommctl.api.testing import BrokenPromiseError

    suites: dict[str, Callable[[], str | None]] = {
        "backend": lambda: _backend(name, host),
        "detector": lambda: _finder(kind, name, host),
        "embedder": lambda: _finder(kind, name, host),
        "dataset": lambda: _dataset(name, host, data),
        "metric": lambda: _metric(name, host),
        "command": lambda: testing.check_command(host.find(kind, name)),
        "preset": lambda: _preset(name, host),
    }
    more: dict[str, Any] = {"read": f"fommctl_{kind}s", "repeat": SUITES[kind]}
    try:
        return Check(kind, name, note=suites[kind]())
    except BrokenPromiseError as error:
        return Check(kind, name, problem=f"requirement not met: {error.promise}", got=error.got, **more)
    except FommctlError as error:
        more |= {"advice": error.hint, "traceback": _traceback(error)}
        return Check(kind, name, problem=error.message, where=_place(error), **more)
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        return Check(kind, name, problem=problem, where=_place(error), traceback=_traceback(error), **more)


def guide() -> Path:
    """Return the guide for plugin authors: inside the package in a wheel, among the plugins in a source tree."""
    package = Path(__file__).parent
    packed = package / "_plugin_guide.md"
    return packed if packed.is_file() else package.parent / "plugins" / "README.md"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _place(error: BaseException) -> str | None:
    """Return the last line outside fommctl and the libraries that led to the error; None where there is none."""
    ours = Path(__file__).parent
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
    """Check training with this backend's preset of the smallest frames, and among those the smallest networks."""
    from fommctl.api.testing_backend import check_backend

    presets = [preset for preset in _presets(host) if preset.backend == name]
    if not presets:
        return "not checked: no preset uses this backend; call check_backend of fommctl.api.testing_backend"
    spec = host.find("backend", name)
    smallest = min(each.frame_shape for each in presets)
    preset = min((each for each in presets if each.frame_shape == smallest), key=lambda each: _weights(spec, each))
    model_params = preset.model_params.model_dump()
    check_backend(spec, model_params, preset.frame_shape)
    _check_other_families(name, preset, host)
    note = _training(spec, preset, model_params)
    return f"passed with the preset {preset.name} in fp32 and bf16{f'; {note}' if note else ''}"


def _presets(host: Host) -> Iterator[Preset]:
    """Yield the presets that load: those of a family whose plugin is left out do not, and have a check of their own."""
    from fommctl.presets.preset import load_preset, preset_names

    for name in preset_names(host):
        try:
            yield load_preset(name, host)
        except UsageError:
            continue


def _check_other_families(name: str, own: Preset, host: Host) -> None:
    """Raise BrokenPromiseError where the backend claims presets or files of others, or cannot read its own file
    without the networks that only training needs."""
    from fommctl.api.testing import require

    spec = host.find("backend", name)
    backend = spec.build(own.model_params)
    needed = {group: backend.modules()[group].state_dict() for group in backend.needed_groups()}
    spec.read_architecture(spec.from_published(needed))
    smallest: dict[str, Preset] = {}
    for preset in _presets(host):
        if preset.backend == name:
            continue
        params = preset.model_params.model_dump()
        theirs = host.find("backend", preset.backend).recognises(params)
        require(
            spec.recognises(params) < theirs, f"recognises() is less sure of {preset.name} than {preset.backend} is"
        )
        before = smallest.get(preset.backend, preset)
        smallest[preset.backend] = min(before, preset, key=lambda each: each.frame_shape)
    for other, preset in smallest.items():
        family = host.find("backend", other)
        groups = {key: dict(net.state_dict()) for key, net in family.build(preset.model_params).modules().items()}
        for layout in (groups, family.to_published(groups)):
            claimed = spec.read_architecture(spec.from_published(layout))
            require(claimed is None, f"a file of {other} is not claimed")


def _weights(spec: BackendSpec, preset: Preset) -> int:
    networks = spec.build(preset.model_params).modules().values()
    return sum(weights.numel() for network in networks for weights in network.parameters())


def _training(spec: BackendSpec, preset: Preset, model_params: dict[str, Any]) -> str | None:
    from fommctl.api.testing_backend import check_training
    from fommctl.api.training import trains

    if not trains(spec.build(preset.model_params)):
        return "it does not train"
    if preset.train_params is None:
        return f"training not checked: the preset {preset.name} has no train_params"
    check_training(spec, model_params, preset.section("train_params").model_dump(), preset.frame_shape)
    return None


def _finder(kind: str, name: str, host: Host) -> str | None:
    from fommctl.api import testing

    spec = host.find(kind, name)
    (testing.check_detector if kind == "detector" else testing.check_embedder)(spec)
    reason = spec.ready()
    return f"not checked: {reason}" if reason else None


def _metric(name: str, host: Host) -> str | None:
    from fommctl.api.testing import check_metric

    spec = host.find("metric", name)
    check_metric(spec)
    try:
        spec.build()
    except MissingError as error:
        return f"not checked: {error.message}"
    return None


def _dataset(name: str, host: Host, data: Path | None) -> str | None:
    from fommctl.api import testing

    spec = host.find("dataset", name)
    if data is None:
        with tempfile.TemporaryDirectory() as empty:
            try:
                next(iter(spec.build().clips(Path(empty))), None)
            except (InputError, MissingError):
                return "not checked: give a folder with its raw data with --data"
    testing.check_dataset(spec, data)
    return None


def _preset(name: str, host: Host) -> str | None:
    from fommctl.presets.preset import load_preset

    load_preset(name, host)
    return None


def check_package(info: PluginInfo, host: Host) -> list[Check]:
    """Check the plugin itself in four respects; only the first where it does not load."""
    if info.problem:
        read = "Versions" if "requires fommctl" in info.problem else "Troubleshooting"
        return [Check("plugin", "loading", problem=info.problem, read=read, traceback=info.traceback)]
    nothing = None if info.registers else "it registers nothing"
    return [Check("plugin", "loading", note=nothing), _requirement(info), _check_summaries(info, host), _import(info)]


def _requirement(info: PluginInfo) -> Check:
    if info.requires or info.distribution == PROJECT:
        note = f"passed: {PROJECT}{info.requires}" if info.requires else None
        return Check("plugin", "requirement", note=note)
    major = int(__version__.partition(".")[0])
    advice = f'Write "{PROJECT}>={major},<{major + 1}" among the dependencies of {info.distribution}.'
    problem = "its distribution does not declare which versions of fommctl it works with"
    return Check("plugin", "requirement", problem=problem, advice=advice, read="Versions")


def _check_summaries(info: PluginInfo, host: Host) -> Check:
    faults = list(_faults(info, host))
    if not faults:
        return Check("plugin", "summaries")
    advice = f"Write one line of at most {LONGEST_SUMMARY} characters."
    return Check("plugin", "summaries", problem="; ".join(faults), advice=advice, read="Hooks")


def _faults(info: PluginInfo, host: Host) -> Iterator[str]:
    for kind, names in info.registers.items():
        for name in names if kind != "hook" else ():
            spec = getattr(host, f"{kind}s").get(name)
            summary = spec.summary if spec else "offered twice"
            # A preset may have its summary in its file.
            if not summary.strip() and kind != "preset":
                yield f"the {kind} {name!r} has no summary"
            elif "\n" in summary:
                yield f"the summary of the {kind} {name!r} has {summary.count(chr(10)) + 1} lines"
            elif len(summary) > LONGEST_SUMMARY:
                yield f"the summary of the {kind} {name!r} has {len(summary)} characters"


def _import(info: PluginInfo) -> Check:
    """Measure the import in another process, since everything may be loaded in this one already."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE.format(module=info.entry_point.partition(":")[0].strip())],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
            env={**os.environ, "PYTHONPATH": paths, RESTRICT: info.name},
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or ""
        problem = f"importing it in a new process fails: {error if done is None else 'it ends the process'}"
        return Check("plugin", "import", problem=problem, read="Life cycle", traceback=str(said) or None)
    heavy, slow = ([name for name in names if name in told["new"]] for names in (HEAVY, SLOW_ONES))
    cost = f"{told['seconds'] * 1000:.3g} ms of every command"
    if heavy:
        advice = "Import it inside the functions that the specs name (build, schema)."
        problem = f"importing it, or calling its hooks, loads {' and '.join(heavy)} ({cost})"
        return Check("plugin", "import", problem=problem, advice=advice, read="Life cycle")
    loads = f"; it loads {', '.join(slow)}, which can wait for build" if slow else ""
    return Check("plugin", "import", note=f"passed: {cost}{', slow' if told['seconds'] > SLOW else ''}{loads}")
