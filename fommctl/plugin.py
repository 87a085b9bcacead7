"""One plugin: an entry point, loaded or not, and what it offers. The host is made of these."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from fommctl.api.hookspecs import PROJECT, Hooks
from fommctl.api.specs import StageEvent
from fommctl.api.validation import SPEC_TYPES, spec_fault, type_name
from fommctl.api.version import DECLARATION, version_fault
from fommctl.errors import FommctlError
from fommctl.presets.config import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fommctl.api.protocols import FrameFilter, SquareFilter

HOOKS = tuple(name for name in vars(Hooks) if name.startswith("fommctl_"))
_ASSIGNED = re.compile(rf"""^{DECLARATION}\b[^=\n]*=\s*["']([^"'\n]*)["']""", re.MULTILINE)

logger = logging.getLogger("fommctl.host")


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """What is known of one plugin."""

    name: str
    """Of the entry point."""
    distribution: str
    version: str
    entry_point: str
    """The value of the entry point: the module, or `module:object`."""
    api: str | None
    """The version of the plugin API that it was written for; None where it does not say, and is taken to be of 1.0."""
    registers: Mapping[str, tuple[str, ...]]
    """Names by kind; listeners and frame filters by the name of their hook under `hook`."""
    problem: str | None
    """Why it did not load, or what was left out of it."""
    traceback: str | None
    """Of the first error, for its author."""


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    return manager


@dataclass(eq=False)
class Plugin:
    """One entry point. Its manager is its own, so that no plugin can stop, wrap or reorder the hooks of another."""

    entry: metadata.EntryPoint
    distribution: str
    version: str
    manager: pluggy.PluginManager = field(default_factory=_new_manager)
    api: str | None = None
    problems: list[str] = field(default_factory=list)
    traceback: str | None = None
    _specs: dict[str, list[Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"plugin {self.entry.name!r} ({self.entry.value}) of {self.distribution}"

    def report(self, problem: str, error: BaseException | None = None) -> None:
        """Note a problem and warn of it."""
        self.problems.append(problem)
        if error is not None and self.traceback is None:
            self.traceback = "".join(traceback.format_exception(error))
        logger.warning("%s: %s", self, problem)

    def load(self) -> None:
        """Import the entry point and register its hooks, unless it was written for another version of the API."""
        try:
            with _stdout_to_stderr():
                loaded = self.entry.load()
                if self._suits(_declared(loaded, self.entry.module)):
                    self.manager.register(loaded, self.entry.name)
                    self._report_misspelt(loaded)
        except (Exception, SystemExit) as error:
            # What a newer API has and this one has not fails at import, before the declaration can be asked for.
            if self._suits(_written(self.entry)):
                self.report(f"does not load: {describe(error)}", error)

    def _suits(self, declared: object) -> bool:
        """Is it for this version of the API? Where it is not, that is reported."""
        fault = None if declared is None else version_fault(declared)
        self.api = declared if isinstance(declared, str) else None
        if fault:
            self.report(fault)
        return fault is None

    def _report_misspelt(self, loaded: object) -> None:
        callers = self.manager.get_hookcallers(loaded) or []
        for caller in callers:
            if not caller.has_spec() and not all(hook.optionalhook for hook in caller.get_hookimpls()):
                self.report(f"unknown hook {caller.name}{did_you_mean(caller.name, HOOKS)}")
        for name in sorted(set(HOOKS).intersection(dir(loaded)).difference(caller.name for caller in callers)):
            self.report(f"{name} is not marked with @hookimpl")

    def specs(self, kind: str) -> list[Any]:
        """The valid specs of this kind; the plugin is asked once."""
        if kind not in self._specs:
            self._specs[kind] = []
            try:
                with _stdout_to_stderr():
                    self._specs[kind].extend(self._valid(kind))
            except (Exception, SystemExit) as error:
                self.report(f"fommctl_{kind}s failed: {describe(error)}", error)
        return self._specs[kind]

    def _valid(self, kind: str) -> Iterator[Any]:
        hook = f"fommctl_{kind}s"
        for offered in getattr(self.manager.hook, hook)():
            if not isinstance(offered, Iterable):
                self.report(f"{hook} returned {type_name(offered)}, not several {SPEC_TYPES[kind].__name__}")
                continue
            for spec in offered:
                fault = spec_fault(kind, spec)
                if fault is None:
                    yield spec
                else:
                    self.report(f"{hook}: {fault}")

    def tell(self, hook: str, event: StageEvent) -> None:
        """Tell it of an event; a failure is a warning."""
        try:
            with _stdout_to_stderr():
                getattr(self.manager.hook, hook)(event=event)
        except (Exception, SystemExit) as error:
            logger.warning("%s: %s failed: %s", self, hook, describe(error))

    def frame_filters(self, event: StageEvent) -> list[FrameFilter]:
        """Its filters for this run. Here and when a filter is called, a failure is a FommctlError that names it."""
        with _failures_named(self, "frame filter"):
            return [_named(self, each) for each in self.manager.hook.fommctl_frame(event=event)]

    def square_filters(self, event: StageEvent) -> list[SquareFilter]:
        """Its filters for the animated squares of this run; failures as with `frame_filters`."""
        with _failures_named(self, "square filter"):
            return [_named_square(self, each) for each in self.manager.hook.fommctl_square(event=event)]

    def info(self) -> PluginInfo:
        """All that it registers; asks it for every kind."""
        registers = {kind: tuple(spec.name for spec in self.specs(kind)) for kind in SPEC_TYPES}
        own = [hook for hook in HOOKS if getattr(self.manager.hook, hook).get_hookimpls()]
        registers["hook"] = tuple(hook for hook in own if hook.removeprefix("fommctl_")[:-1] not in SPEC_TYPES)
        return PluginInfo(
            name=self.entry.name,
            distribution=self.distribution,
            version=self.version,
            entry_point=self.entry.value,
            api=self.api,
            registers={kind: names for kind, names in registers.items() if names},
            problem="; ".join(self.problems) or None,
            traceback=self.traceback,
        )


def _declared(loaded: object, module: str) -> object:
    """What a plugin declares as its version of the API, or its module for it; None where neither does."""
    return getattr(loaded, DECLARATION, getattr(sys.modules.get(module), DECLARATION, None))


def _written(entry: metadata.EntryPoint) -> str | None:
    """What the text of its module declares, without importing it; None where that cannot be told."""
    try:
        found = importlib.util.find_spec(entry.module)
        text = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    except (Exception, SystemExit) as error:
        logger.debug("what the plugin %r declares cannot be read: %s", entry.name, describe(error))
        return None
    assigned = _ASSIGNED.search(text)
    return assigned[1] if assigned else None


def why_not_ready(spec: Any) -> str | None:
    """Why what a spec (of a detector, embedder or metric) describes cannot be built at once; None where it can.

    A plugin that fails at the question is not ready.
    """
    try:
        with _stdout_to_stderr():
            reason = spec.ready()
    except (Exception, SystemExit) as error:
        return f"whether it is ready cannot be told: {describe(error)}"
    return None if reason is None else str(reason)


@contextlib.contextmanager
def _failures_named(plugin: Plugin, what: str) -> Iterator[None]:
    try:
        yield
    except FommctlError:
        raise
    except (Exception, SystemExit) as error:
        hint = "Leave the plugin out with FOMMCTL_PLUGINS (see 'fommctl plugins list'), or tell its authors."
        raise FommctlError(f"the {what} of {plugin} failed: {describe(error)}", hint) from error


def _named(plugin: Plugin, frame_filter: FrameFilter) -> FrameFilter:
    def call(frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        with _failures_named(plugin, "frame filter"):
            result = frame_filter(frame, index)
            if result.shape != frame.shape or result.dtype != frame.dtype:
                raise ValueError(f"{result.shape} {result.dtype} came back for {frame.shape} {frame.dtype}")
        return result

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


def describe(error: BaseException) -> str:
    """`ValueError: what it says`, at most about 300 characters, for a message."""
    return f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ")


def _stdout_to_stderr() -> contextlib.redirect_stdout[Any]:
    """What a plugin prints must not end up in the JSON on stdout."""
    return contextlib.redirect_stdout(sys.stderr)
