"""The plugin host: finds plugins by their entry points, checks what they offer and reports what is broken.

Hooks are pluggy hooks, with one manager for all plugins; each plugin is called by itself, so that every failure can be
attributed. Nothing that a plugin does wrong stops the host: it becomes a problem of that plugin and a warning. Only two
specs of one kind with the same name are an error, because neither may win silently.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import re
import shutil
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from fommctl import __version__
from fommctl.api.specs import (
    PROJECT,
    SPEC_TYPES,
    BackendSpec,
    CommandSpec,
    DatasetSpec,
    DetectorSpec,
    EmbedderSpec,
    Hooks,
    MetricSpec,
    ModelSpec,
    PresetSpec,
    StageEvent,
    spec_fault,
    type_name,
)
from fommctl.errors import FommctlError, UsageError, describe
from fommctl.presets.config import did_you_mean, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fommctl.api.protocols import FrameFilter, SquareFilter


HOOKS = tuple(name for name in vars(Hooks) if name.startswith("fommctl_"))
GROUP = "fommctl"
"""The entry-point group of plugins."""
RESTRICT = "FOMMCTL_PLUGINS"
"""Environment variable that names the plugins to load."""
logger = logging.getLogger("fommctl.host")
F = TypeVar("F")


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """A plugin's properties and problems."""

    name: str
    """Name of the entry point."""
    distribution: str
    version: str
    entry_point: str
    """The value of the entry point: the module, or `module:object`."""
    requires: str | None
    """Versions of fommctl that its distribution depends on, such as `<3,>=2`; None where it names none."""
    registers: Mapping[str, tuple[str, ...]]
    """Names of specs by kind; listeners and frame filters by the name of their hook, under `hook`."""
    problem: str | None
    """Why it did not load, or what was left out of it."""
    traceback: str | None
    """Traceback of the first error, for the plugin's author."""


@dataclass(eq=False)
class Plugin:
    """One entry point, loaded or not, and the specs, listeners and filters that it offers."""

    entry: metadata.EntryPoint
    distribution: str
    version: str
    manager: pluggy.PluginManager = field(repr=False)
    """The manager that all plugins share."""
    requires: str | None = None
    """Versions of fommctl that its distribution depends on; None where it names none, `` for any."""
    problems: list[str] = field(default_factory=list)
    traceback: str | None = None
    hooks: dict[str, list[pluggy.HookImpl]] = field(default_factory=dict)
    """The plugin's implementations by the name of the hook; empty until it is loaded."""
    _specs: dict[str, list[Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"plugin {self.entry.name!r} ({self.entry.value}) of {self.distribution}"

    def report(self, problem: str, error: BaseException | None = None) -> None:
        """Record a problem and log it as a warning."""
        self.problems.append(problem)
        if error is not None and self.traceback is None:
            self.traceback = "".join(traceback.format_exception(error))
        logger.warning("%s: %s", self, problem)

    def load(self) -> None:
        """Import the entry point and register its hooks, unless its distribution requires another version of fommctl.

        A failure is reported as a problem.
        """
        if not _suits(self.requires):
            self.report(f"it requires fommctl{self.requires}, and this is fommctl {__version__}")
            return
        try:
            with _stdout_to_stderr():
                loaded = self.entry.load()
                key = f"{self.distribution} {self.entry.name}"
                self.manager.register(loaded, key)
                for caller in self.manager.get_hookcallers(loaded) or []:
                    own = [each for each in reversed(caller.get_hookimpls()) if each.plugin_name == key]
                    self.hooks[caller.name] = own
                    if not caller.has_spec() and not all(each.optionalhook for each in own):
                        self.report(f"unknown hook {caller.name}{did_you_mean(caller.name, HOOKS)}")
                for name in sorted(set(HOOKS).intersection(dir(loaded)).difference(self.hooks)):
                    self.report(f"{name} is not marked with @hookimpl")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.report(f"does not load: {describe(error)}", error)

    def ask(self, hook: str, **arguments: Any) -> list[Any]:
        """Call this plugin's own implementations of a hook, so that no plugin can stop, wrap or reorder another's."""
        own = self.hooks.get(hook, ())
        answers = [each.function(*(arguments[name] for name in each.argnames)) for each in own]
        return [answer for answer in answers if answer is not None]

    def specs(self, kind: str) -> list[Any]:
        """Return the valid specs of this kind; the plugin's hook is called only once."""
        if kind not in self._specs:
            self._specs[kind] = []
            try:
                with _stdout_to_stderr():
                    self._specs[kind].extend(self._valid(kind))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self.report(f"fommctl_{kind}s failed: {describe(error)}", error)
        return self._specs[kind]

    def _valid(self, kind: str) -> Iterator[Any]:
        hook = f"fommctl_{kind}s"
        for offered in self.ask(hook):
            if not isinstance(offered, Iterable):
                self.report(f"{hook} returned {type_name(offered)}, not several {SPEC_TYPES[kind].__name__}")
                continue
            for spec in offered:
                fault = spec_fault(kind, spec)
                if fault is None:
                    yield spec
                else:
                    self.report(f"{hook}: {fault}")

    def info(self) -> PluginInfo:
        """Describe the plugin, with everything that it registers."""
        registers = {kind: tuple(spec.name for spec in self.specs(kind)) for kind in SPEC_TYPES}
        registers["hook"] = tuple(
            hook for hook in HOOKS if hook in self.hooks and hook.removeprefix("fommctl_")[:-1] not in SPEC_TYPES
        )
        return PluginInfo(
            name=self.entry.name,
            distribution=self.distribution,
            version=self.version,
            entry_point=self.entry.value,
            requires=self.requires,
            registers={kind: names for kind, names in registers.items() if names},
            problem="; ".join(self.problems) or None,
            traceback=self.traceback,
        )


def why_not_ready(spec: Any) -> str | None:
    """Return why a detector, embedder or metric cannot be used now; None if it can.

    A plugin whose `ready` fails is not ready.
    """
    try:
        with _stdout_to_stderr():
            reason = spec.ready()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"whether it is ready cannot be told: {describe(error)}"
    return None if reason is None else str(reason)


@contextlib.contextmanager
def _failures_named(plugin: Plugin, what: str) -> Iterator[None]:
    try:
        yield
    except (FommctlError, KeyboardInterrupt):
        raise
    except BaseException as error:
        hint = "Leave the plugin out with FOMMCTL_PLUGINS (see 'fommctl plugins list'), or tell its authors."
        raise FommctlError(f"the {what} of {plugin} failed: {describe(error)}", hint) from error


def _named(plugin: Plugin, frame_filter: FrameFilter) -> FrameFilter:
    def call(frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        with _failures_named(plugin, "frame filter"):
            result = frame_filter(frame, index)
            if result.shape != frame.shape or result.dtype != frame.dtype:
                raise ValueError(f"{result.shape} {result.dtype} came back for {frame.shape} {frame.dtype}")
        return result

    call.floats = getattr(frame_filter, "floats", False)  # type: ignore[attr-defined]  # see `fommctl_frame`
    return call


def _named_square(plugin: Plugin, square_filter: SquareFilter) -> SquareFilter:
    def call(squares: Tensor) -> Tensor:
        with _failures_named(plugin, "square filter"):
            result = square_filter(squares)
            if result.ndim != 4 or result.shape[:2] != squares.shape[:2] or not result.numel():
                raise ValueError(f"{tuple(result.shape)} came back for {tuple(squares.shape)}")
            if not result.is_floating_point():
                raise ValueError(f"{result.dtype} came back for {squares.dtype}")
        return result

    return call


def _stdout_to_stderr() -> contextlib.redirect_stdout[Any]:
    """Send what a plugin prints to stderr, away from the JSON on stdout."""
    return contextlib.redirect_stdout(sys.stderr)


class Host:
    """The plugins of this installation; specs of a kind are collected when that kind is first needed."""

    def __init__(self, plugins: Iterable[Plugin], warnings: Iterable[str] = ()) -> None:
        self._plugins = tuple(plugins)
        self._offered: dict[str, dict[str, list[tuple[Plugin, Any]]]] = {}
        self.warnings = tuple(warnings)
        """Warnings about the host itself, not one plugin: unknown names in FOMMCTL_PLUGINS."""

    @cached_property
    def backends(self) -> Mapping[str, BackendSpec]:
        return self._unique("backend")

    @cached_property
    def datasets(self) -> Mapping[str, DatasetSpec]:
        return self._unique("dataset")

    @cached_property
    def detectors(self) -> Mapping[str, DetectorSpec]:
        return self._unique("detector")

    @cached_property
    def embedders(self) -> Mapping[str, EmbedderSpec]:
        return self._unique("embedder")

    @cached_property
    def metrics(self) -> Mapping[str, MetricSpec]:
        return self._unique("metric")

    @cached_property
    def presets(self) -> Mapping[str, PresetSpec]:
        """Presets by name, without aliases; `find("preset", ...)` accepts those too."""
        return self._unique("preset")

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        return self._unique("model")

    @cached_property
    def commands(self) -> Mapping[str, CommandSpec]:
        return self._unique("command")

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """Plugins in the order of FOMMCTL_PLUGINS, or by name where it is not set."""
        return tuple(plugin.info() for plugin in self._plugins)

    def find(self, kind: str, name: str) -> Any:
        """Return the spec of this kind and name; presets are also found by their aliases.

        Raises UsageError for an unknown name, suggesting the nearest known one, and for a name that two plugins offer.
        """
        offers = self._offers(kind)
        found = offers.get(name, [])
        if len(found) == 1:
            return found[0][1]
        if found:
            raise _conflict(f"{kind} {name!r}", [plugin for plugin, _ in found])
        near = nearest(name, offers)
        hint = f"Did you mean {near!r}?" if near else f"Known: {', '.join(sorted(offers)) or 'none'}."
        if any(plugin.problems for plugin in self._plugins):
            hint += " Some plugins have problems: see 'fommctl plugins list'."
        raise UsageError(f"unknown {kind} {name!r}", hint)

    def names(self, kind: str) -> list[str]:
        """Return all names of this kind, sorted, including aliases and names that two plugins offer."""
        return sorted(self._offers(kind))

    def owner(self, kind: str, name: str) -> str:
        """Return the name of the plugin that offers a spec, for messages."""
        return " and ".join(str(plugin) for plugin, _ in self._offers(kind).get(name, []))

    def ask(self, kind: str, name: str, function: str, *arguments: Any, default: Any) -> Any:
        """Call a function of a spec and return its result; if it fails, report a problem and return `default`.

        A FommctlError counts as an answer and is raised.
        """
        ((plugin, spec),) = self._offers(kind)[name]
        try:
            with _stdout_to_stderr():
                return getattr(spec, function)(*arguments)
        except (FommctlError, KeyboardInterrupt):
            raise
        except BaseException as error:
            problem = f"{function} of the {kind} {name!r} failed: {describe(error)}"
            if problem not in plugin.problems:
                plugin.report(problem, error)
            return default

    def version(self, kind: str, name: str) -> str:
        """Return distribution and version of the plugin that offers a spec, as a key for cached results."""
        return " and ".join(f"{each.distribution} {each.version}" for each, _ in self._offers(kind).get(name, []))

    def conflicts(self) -> list[UsageError]:
        """Return one error for each name that is offered twice, and one for several default models."""
        offered = {(kind, name): found for kind in SPEC_TYPES for name, found in self._offers(kind).items()}
        errors = [
            _conflict(f"{kind} {name!r}", [plugin for plugin, _ in found])
            for (kind, name), found in offered.items()
            if len(found) > 1
        ]
        defaults = [plugin for plugin in self._plugins for spec in plugin.specs("model") if spec.default]
        return [*errors, _conflict("default model", defaults)] if len(defaults) > 1 else errors

    def started(self, event: StageEvent) -> None:
        """Notify every plugin that a stage begins."""
        self._notify("fommctl_stage_started", event)

    def finished(self, event: StageEvent) -> None:
        """Notify every plugin that a stage has succeeded."""
        self._notify("fommctl_stage_finished", event)

    def _notify(self, hook: str, event: StageEvent) -> None:
        """Pass an event to the listeners; a failure is only a warning."""
        for plugin in self._plugins:
            if hook not in plugin.hooks:
                continue
            try:
                with _stdout_to_stderr():
                    plugin.ask(hook, event=event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                logger.warning("%s: %s failed: %s", plugin, hook, describe(error))

    def frame_filters(self, event: StageEvent) -> list[FrameFilter]:
        """Return all plugins' filters for the finished frames of this run, in the order of `plugins`.

        A failure, here or in a filter, is raised as a FommctlError that names the plugin.
        """
        return self._filters("fommctl_frame", "frame filter", _named, event)

    def square_filters(self, event: StageEvent) -> list[SquareFilter]:
        """Return all plugins' filters for the animated squares of this run, as `frame_filters` does for frames."""
        return self._filters("fommctl_square", "square filter", _named_square, event)

    def _filters(self, hook: str, kind: str, named: Callable[[Plugin, F], F], event: StageEvent) -> list[F]:
        found: list[F] = []
        for plugin in self._plugins:
            if hook in plugin.hooks:
                with _failures_named(plugin, kind):
                    found += [named(plugin, each) for each in plugin.ask(hook, event=event)]
        return found

    def _offers(self, kind: str) -> Mapping[str, Sequence[tuple[Plugin, Any]]]:
        """Return the plugins and specs of a kind by name; the plugins are asked once."""
        if kind in self._offered:
            return self._offered[kind]
        offers: dict[str, list[tuple[Plugin, Any]]] = {}
        for plugin in self._plugins:
            for spec in plugin.specs(kind):
                for name in {spec.name, *getattr(spec, "aliases", ())}:
                    offers.setdefault(name, []).append((plugin, spec))
        self._offered[kind] = offers
        return offers

    def _unique(self, kind: str) -> dict[str, Any]:
        alone = {name: found[0][1] for name, found in self._offers(kind).items() if len(found) == 1}
        return {name: spec for name, spec in alone.items() if spec.name == name}


def load_host(*, check: bool = True) -> Host:
    """Return the host with every plugin that FOMMCTL_PLUGINS (names of entry points, separated by commas) allows.

    check: raise UsageError if two specs of one kind share a name; otherwise the host leaves such specs out, and
    `conflicts` lists them.
    """
    plugins = _discover()
    warnings = []
    wanted = os.environ.get(RESTRICT)
    if wanted is not None:
        names = [name for name in re.split(r"[,\s]+", wanted) if name]
        unknown = [name for name in names if all(plugin.entry.name != name for plugin in plugins)]
        warnings = [f"{RESTRICT} names {name!r}, which no installed plugin has" for name in unknown]
        plugins = [plugin for name in dict.fromkeys(names) for plugin in plugins if plugin.entry.name == name]
    for warning in warnings:
        logger.warning("%s", warning)
    for plugin in plugins:
        plugin.load()
    host = Host(plugins, warnings)
    for conflict in host.conflicts() if check else ():
        raise conflict
    return host


def _discover() -> list[Plugin]:
    """Return the entry points of the group, sorted by name; if a distribution is installed twice, the first on sys.path
    wins."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    found: dict[tuple[str, str], Plugin] = {}
    for distribution in metadata.distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except Exception as error:
            logger.debug("the entry points of an installed distribution cannot be read: %s", describe(error))
            continue
        if not entries:
            continue
        # Once per distribution: each access parses all of its metadata.
        (name, version), required = _name_and_version(distribution), _required(distribution)
        for entry in entries:
            key = re.sub(r"[-_.]+", "-", name).lower(), entry.name
            found.setdefault(key, Plugin(entry, name, version, manager, required))
    return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0]))]


def _name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        about = distribution.metadata
        return about["Name"] or "unknown", about["Version"] or "unknown"
    except Exception:
        return "unknown", "unknown"


def _required(distribution: metadata.Distribution) -> str | None:
    """Return the versions of fommctl that a distribution depends on; None if it does not name fommctl."""
    try:
        named = [text for text in distribution.requires or () if re.match(rf"{PROJECT}(?![\w.-])", text, re.IGNORECASE)]
        if not named:
            return None
        from packaging.requirements import Requirement

        return str(Requirement(named[0]).specifier)
    except Exception as error:
        logger.debug("the requirements of an installed distribution cannot be read: %s", describe(error))
        return None


def _suits(required: str | None) -> bool:
    """Return whether this version of fommctl satisfies a distribution's requirement."""
    if not required:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(required).contains(__version__, prereleases=True)


def _conflict(what: str, plugins: list[Plugin]) -> UsageError:
    owners = " and ".join(str(plugin) for plugin in plugins)
    hint = f"Uninstall one of them, or name those to load in {RESTRICT} (see 'fommctl plugins list')."
    return UsageError(f"there is more than one {what}: {owners}", hint)


def add_plugin(path: Path) -> None:
    """Make a plugin that is not installed available to this process and its child processes.

    path: a project with a pyproject.toml, or a module or package, which gives the plugin its name. The plugin's version
    is the project's, or 0, with a hash of its source appended. Raises UsageError if `path` is neither.
    """
    path = path.expanduser().absolute()
    project: dict[str, Any] = {}
    root, entries = path.parent, {path.stem: path.stem}
    if (path / "pyproject.toml").is_file():
        with (path / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file).get("project", {})
        root = path / "src" if (path / "src").is_dir() else path
        entries = project.get("entry-points", {}).get(GROUP, {})
    elif not (path.suffix == ".py" and path.is_file()) and not (path / "__init__.py").is_file():
        raise UsageError(f"{path} is not a plugin", "Name a project with a pyproject.toml, a module or a package.")
    if not entries:
        raise UsageError(
            f"{path}/pyproject.toml has no entry points of the group {GROUP}", "See 'fommctl plugins new'."
        )
    modules = [root / value.partition(":")[0].partition(".")[0] for value in entries.values()]
    sources = [file for each in modules for file in (sorted(each.rglob("*.py")) or [each.with_suffix(".py")])]
    digest = sha256(b"".join(file.read_bytes() for file in sources if file.is_file())).hexdigest()[:12]
    name, version = project.get("name", path.stem), f"{project.get('version', '0')}+{digest}"
    folder = tempfile.mkdtemp(prefix="fommctl-plugin-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    info = Path(folder) / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {each}\n" for each in project.get("dependencies", ()))
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(head + needs, encoding="utf-8")
    lines = "".join(f"{entry} = {value}\n" for entry, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}", encoding="utf-8")
    sys.path[:0] = [folder, str(root)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, str(root), os.environ.get("PYTHONPATH"))))
    importlib.invalidate_caches()
