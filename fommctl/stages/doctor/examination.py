"""All checks, each for itself: what goes wrong in one is a finding like any other."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from fommctl.errors import FommctlError
from fommctl.stages.doctor.child import describe
from fommctl.stages.doctor.findings import Examination, Finding
from fommctl.stages.doctor.privacy import Veil
from fommctl.stages.doctor.probe import Probes, Seen

LIMIT = 60.0
"""Seconds for each group of checks; a healthy machine takes about ten for all of them."""
ROOM = "fommctl.stages.doctor"


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """How to examine."""

    limit: float = LIMIT
    """Seconds for each of the groups of checks that run beside each other."""


@dataclass(frozen=True, slots=True)
class _Check:
    area: str
    """Under which its failure is reported."""
    place: str
    """MODULE.FUNCTION below ROOM, imported when it is called: what is broken must not keep the others from running."""
    seen: tuple[str, ...] = ()
    """The groups of items that it reads."""


_CHECKS = (
    _Check("machine", "packages.check_python"),
    _Check("machine", "machine.check_platform"),
    _Check("machine", "machine.check_processor"),
    _Check("machine", "machine.check_cores"),
    _Check("machine", "machine.check_memory"),
    _Check("packages", "packages.check_installation"),
    _Check("packages", "packages.check_dependencies", ("imports",)),
    _Check("packages", "packages.check_rivals"),
    _Check("extras", "packages.check_extras"),
    _Check("devices", "devices.check_devices", ("torch",)),
    _Check("codecs", "codecs.check_codecs", ("codecs",)),
    _Check("plugins", "plugins.check_plugins", ("plugins",)),
    _Check("weights", "weights.check_weights", ("weights", "torch")),
    _Check("disk", "disk.check_home"),
    _Check("disk", "disk.check_torch_hub"),
    _Check("disk", "disk.check_temporary"),
    _Check("disk", "disk.check_here"),
    _Check("disk", "disk.check_shared_memory"),
    _Check("environment", "settings.check_settings"),
    _Check("trial", "trial.check_trial", ("torch",)),
)


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "torch": ("devices.ITEMS", "weights.TORCH_ITEMS", "trial.ITEMS"),
    "imports": ("packages.import_items",),
    "codecs": ("codecs.ITEMS",),
    "plugins": ("plugins.items",),
    "weights": ("weights.ITEMS",),
}
"""What is looked at in a process of its own, one process a group: names of items, or of functions that return them."""


def run(config: DoctorConfig | None = None) -> Examination:
    """Examine this installation and this machine. Raises nothing but KeyboardInterrupt."""
    config = config or DoctorConfig()
    with Probes(config.limit) as probes:
        groups = {name: _started(probes, places) for name, places in _GROUPS.items()}
        # What needs no process of its own is looked at while the processes run.
        done = {check: _isolated(check, None) for check in _CHECKS if not check.seen}
        seen = {name: group.result() if group else Seen() for name, group in groups.items()}
    findings: list[Finding] = []
    for check in _CHECKS:
        findings += done[check] if check in done else _isolated(check, _together(check.seen, seen))
    veil = Veil.of_this_user()
    return Examination(
        findings=tuple(map(veil.finding, findings)),
        versions=veil.data(_quietly("packages.versions", {}) | _quietly("weights.versions", {}, seen["weights"])),
        devices=veil.data(_quietly("devices.summary", [], seen["torch"])),
    )


def _started(probes: Probes, places: Iterable[str]) -> Future[Seen] | None:
    """The group at work; None where nobody knows what there is to look at."""
    items: list[str] = []
    for place in places:
        items += _quietly(place, ())
    return probes.start(items) if items else None


def _together(names: Iterable[str], seen: Mapping[str, Seen]) -> Seen:
    facts, troubles = Seen().facts, Seen().troubles
    for name in names:
        facts |= seen[name].facts
        troubles |= seen[name].troubles
    return Seen(facts, troubles)


def _isolated(check: _Check, seen: Seen | None) -> list[Finding]:
    """What a check finds, up to where it fails, and its failure."""
    found: list[Finding] = []
    try:
        function = _called(check.place)
        for finding in function() if seen is None else function(seen):
            found.append(finding)
    except Exception as error:
        name, value = check.place.rpartition("_")[2], f"could not be checked: {describe(error)}"
        # Without the trial nobody knows whether the main job works.
        stops = check.area == "trial"
        found.append(
            Finding(area=check.area, name=name, value=value, level="problem", advice=_advice(error), stops=stops)
        )
    return found


def _advice(error: Exception) -> str:
    """What to do where a check itself fails."""
    if isinstance(error, FommctlError) and error.hint:
        return error.hint
    if isinstance(error, ImportError) and error.name:
        return f"Run 'pip install --force-reinstall {error.name.partition('.')[0]}'."
    return "Report it as a bug of fommctl, with this report."


def _quietly(place: str, otherwise: Any, *arguments: Any) -> Any:
    """A constant or the result of a function; `otherwise` where that fails, which the checks tell of."""
    try:
        found = _called(place)
        return found(*arguments) if callable(found) else found
    except Exception:
        return otherwise


def _called(place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(importlib.import_module(f"{ROOM}.{module}"), name)
