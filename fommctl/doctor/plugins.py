"""Checks of the plugins: which load, what is wrong with them, and which of their detectors and metrics are ready."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from fommctl.doctor.report import Row

if TYPE_CHECKING:
    from fommctl.host import Host
    from fommctl.plugin import PluginInfo

ALL = "plugins"
_REINSTALL = "Run 'pip install --force-reinstall fommctl'."


def names() -> list[str]:
    """Return what to check: the entry points to load, one by one, then ALL together."""
    found = sorted({entry.name for entry in metadata.entry_points(group="fommctl")})
    wanted = os.environ.get("FOMMCTL_PLUGINS")
    return [*(name for name in found if wanted is None or name in re.split(r"[,\s]+", wanted)), ALL]


def check(name: str) -> Iterator[Row]:
    """Load one plugin, or ask the host about ALL: runs in the child."""
    if name != ALL:
        # An error is told by the host below; this step is here for plugins that end the process.
        for entry in metadata.entry_points(group="fommctl", name=name):
            with contextlib.suppress(Exception, SystemExit):
                entry.load()
        return
    from fommctl.host import load_host

    host = load_host(check=False)
    yield from map(_plugin, host.plugins)
    if not any(plugin.distribution == "fommctl" for plugin in host.plugins):
        yield _problem(ALL, "none of fommctl's own is loaded", f"Unset FOMMCTL_PLUGINS; else: {_REINSTALL}", stops=True)
    for warning in host.warnings:
        yield _problem("FOMMCTL_PLUGINS", warning, "Correct it; 'fommctl plugins list' shows the names.")
    for conflict in host.conflicts():
        yield _problem("conflict", conflict.message, conflict.hint, stops=True)
    yield from _detectors(host)
    yield from _readiness("embedders", host)
    yield from _readiness("metrics", host)


def _plugin(plugin: PluginInfo) -> Row:
    of = f"{plugin.distribution} {plugin.version}"
    if plugin.problem is None:
        counts = {kind: len(registered) for kind, registered in plugin.registers.items()}
        offers = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
        return Row(area="plugins", name=plugin.name, value=f"{of}; {offers or 'offers nothing'}")
    own = plugin.distribution == "fommctl"
    upgrade = f"Run 'pip install --upgrade {plugin.distribution}' or uninstall it; "
    advice = _REINSTALL if own else f"{upgrade}'fommctl plugins show {plugin.name}' has the traceback."
    return _problem(plugin.name, f"{of}; {plugin.problem}", advice, stops=own)


def _detectors(host: Host) -> Iterator[Row]:
    """Yield a row for each detector: ready, chosen by default, or what it lacks."""
    from fommctl.plugin import why_not_ready

    chosen: dict[str, str] = {}
    for spec in sorted(host.detectors.values(), key=lambda spec: -spec.priority):
        reason = why_not_ready(spec)
        if reason is None:
            first = chosen.setdefault(spec.subject, spec.name) == spec.name
            value = f"{spec.subject}: ready{', the default' if first else ''}"
            yield Row(area="plugins", name=spec.name, value=value)
        else:
            fetched = "package" not in reason and "raised" not in reason
            advice = f"It fetches weights when named: '--detector {spec.name}'." if fetched else None
            value = f"{spec.subject}: {reason}"
            yield Row(area="plugins", name=spec.name, value=value, level="note", advice=advice)
    if "face" not in chosen:
        advice = "Run 'pip install --force-reinstall dlib-bin'; until then use --crop none or --crop X,Y,SIZE."
        yield _problem("detectors", "no face detector is ready, so --crop auto cannot work", advice, stops=True)


def _readiness(kinds: str, host: Host) -> Iterator[Row]:
    """Yield one row for all embedders or metrics, and one for each reason why some are not ready."""
    from fommctl.plugin import why_not_ready

    reasons: dict[str | None, list[str]] = {}
    for spec in getattr(host, kinds).values():
        reasons.setdefault(why_not_ready(spec), []).append(spec.name)
    ready = reasons.pop(None, [])
    total = len(ready) + sum(map(len, reasons.values()))
    yield Row(area="plugins", name=kinds, value=f"{len(ready)} of {total} ready")
    for reason, found in reasons.items():
        yield Row(area="plugins", name=kinds, value=f"{', '.join(found)}: {reason}", level="note")


def _problem(name: str, value: str, advice: str | None, *, stops: bool = False) -> Row:
    return Row(area="plugins", name=name, value=value, level="problem", advice=advice, stops=stops)
