"""The plugin host: finds plugins by their entry points, checks what they offer and says what is broken.

Nothing that a plugin does wrong stops the host: it becomes a problem of that plugin and a warning. Only two specs of
one kind with one name are an error, because neither may win in silence.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import metadata
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from fommctl.api.specs import (
    BackendSpec,
    CommandSpec,
    DatasetSpec,
    DetectorSpec,
    EmbedderSpec,
    MetricSpec,
    ModelSpec,
    PresetSpec,
    StageEvent,
)
from fommctl.api.validation import SPEC_TYPES
from fommctl.errors import UsageError
from fommctl.plugin import Plugin, PluginInfo, describe
from fommctl.presets.config import nearest

if TYPE_CHECKING:
    from fommctl.api.protocols import FrameFilter, SquareFilter

GROUP = "fommctl"
RESTRICT = "FOMMCTL_PLUGINS"
logger = logging.getLogger("fommctl.host")


class Host:
    """The plugins of this installation; each is asked for a kind of spec when that kind is first needed."""

    def __init__(self, plugins: Iterable[Plugin], warnings: Iterable[str] = ()) -> None:
        self._plugins = tuple(plugins)
        self.warnings = tuple(warnings)
        """About the host itself, not one plugin: an unknown name in FOMMCTL_PLUGINS."""

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
        """By name; `find("preset", ...)` knows the aliases too."""
        return self._unique("preset")

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        return self._unique("model")

    @cached_property
    def commands(self) -> Mapping[str, CommandSpec]:
        return self._unique("command")

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """In the order of registration: that of FOMMCTL_PLUGINS, else by name."""
        return tuple(plugin.info() for plugin in self._plugins)

    def find(self, kind: str, name: str) -> Any:
        """The spec of this kind and name; a preset also by an alias.

        Raises UsageError for an unknown name, with the nearest known one, and for a name that two plugins offer.
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
        """All names of this kind, sorted; also aliases, and names that two plugins offer."""
        return sorted(self._offers(kind))

    def owner(self, kind: str, name: str) -> str:
        """Whose this spec is, for a message."""
        return " and ".join(str(plugin) for plugin, _ in self._offers(kind).get(name, []))

    def blamed(self, error: BaseException) -> str | None:
        """The plugin in whose code an error arose, the innermost one, for a message; None where none took part."""
        plugins = {plugin.entry.module.partition(".")[0]: plugin for plugin in self._plugins}
        frames = [frame.f_globals.get("__name__") or "" for frame, _ in walk_tb(error.__traceback__)]
        packages = [name.partition(".")[0] for name in reversed(frames)]
        return next((str(plugins[package]) for package in packages if package in plugins), None)

    def version(self, kind: str, name: str) -> str:
        """Distribution and version of whose this spec is: what was made with it holds for this version."""
        return " and ".join(f"{each.distribution} {each.version}" for each, _ in self._offers(kind).get(name, []))

    def conflicts(self) -> list[UsageError]:
        """One error for each name that is offered twice, and for a second default model."""
        offered = {(kind, name): found for kind in SPEC_TYPES for name, found in self._offers(kind).items()}
        errors = [
            _conflict(f"{kind} {name!r}", [plugin for plugin, _ in found])
            for (kind, name), found in offered.items()
            if len(found) > 1
        ]
        defaults = [plugin for plugin in self._plugins for spec in plugin.specs("model") if spec.default]
        return [*errors, _conflict("default model", defaults)] if len(defaults) > 1 else errors

    def started(self, event: StageEvent) -> None:
        """Tell every plugin that a stage begins."""
        for plugin in self._plugins:
            plugin.tell("fommctl_stage_started", event)

    def finished(self, event: StageEvent) -> None:
        """Tell every plugin that a stage ended well."""
        for plugin in self._plugins:
            plugin.tell("fommctl_stage_finished", event)

    def frame_filters(self, event: StageEvent) -> list[FrameFilter]:
        """The filters for the frames of this run, in the order of registration.

        Here and when a filter is called, its failure is a FommctlError that names the plugin.
        """
        return [each for plugin in self._plugins for each in plugin.frame_filters(event)]

    def square_filters(self, event: StageEvent) -> list[SquareFilter]:
        """The filters for the animated squares of this run, as `frame_filters`."""
        return [each for plugin in self._plugins for each in plugin.square_filters(event)]

    def _offers(self, kind: str) -> dict[str, list[tuple[Plugin, Any]]]:
        offers: dict[str, list[tuple[Plugin, Any]]] = {}
        for plugin in self._plugins:
            for spec in plugin.specs(kind):
                for name in {spec.name, *getattr(spec, "aliases", ())}:
                    offers.setdefault(name, []).append((plugin, spec))
        return offers

    def _unique(self, kind: str) -> dict[str, Any]:
        alone = {name: found[0][1] for name, found in self._offers(kind).items() if len(found) == 1}
        return {name: spec for name, spec in alone.items() if spec.name == name}


def load_host(*, check: bool = True) -> Host:
    """The host with every plugin that FOMMCTL_PLUGINS (names of entry points, separated by commas) allows.

    check: raise UsageError where two specs of one kind have one name; without it the host leaves such specs out,
    and `conflicts` tells of them.
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
    """The entry points of the group, by name; of a distribution that is found twice, the first on sys.path counts."""
    found: dict[tuple[str, str], Plugin] = {}
    for distribution in metadata.distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except Exception as error:
            logger.debug("the entry points of an installed distribution cannot be read: %s", describe(error))
            continue
        for entry in entries:
            name, version = _name_and_version(distribution)
            key = re.sub(r"[-_.]+", "-", name).lower(), entry.name
            found.setdefault(key, Plugin(entry, name, version))
    return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0]))]


def _name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        return distribution.metadata["Name"] or "unknown", distribution.version or "unknown"
    except Exception:
        return "unknown", "unknown"


def _conflict(what: str, plugins: list[Plugin]) -> UsageError:
    owners = " and ".join(str(plugin) for plugin in plugins)
    hint = f"Uninstall one of them, or name those to load in {RESTRICT} (see 'fommctl plugins list')."
    return UsageError(f"there is more than one {what}: {owners}", hint)
