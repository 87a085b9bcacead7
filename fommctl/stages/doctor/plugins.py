"""The plugins: which there are, what is wrong with them, and which of what they offer is ready."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.probe import SKIPPED, Seen

AREA = "plugins"
GROUP, RESTRICT = "fommctl", "FOMMCTL_PLUGINS"
"""As the host has them; it is not imported, because what it needs may be broken."""
ITEMS = ("plugins.host", "plugins.detector", "plugins.embedder", "plugins.metric")
OWN = "fommctl"
"""The distribution whose plugins the built-in model needs."""
SUBJECT = "face"
"""What `animate` looks for with the built-in model."""


def items() -> list[str]:
    """What is looked at: each plugin for itself, then all together."""
    return [*(f"plugins.load:{name}" for name in _names()), *ITEMS]


def _names() -> list[str]:
    """Of the entry points that are loaded here, sorted."""
    names = sorted({entry.name for entry in metadata.entry_points(group=GROUP)})
    wanted = os.environ.get(RESTRICT)
    return names if wanted is None else [name for name in names if name in re.split(r"[,\s]+", wanted)]


def check_plugins(seen: Seen) -> Iterator[Finding]:
    """seen: what was found for `items`."""
    culprits = {
        item.partition(":")[2]: why
        for item, why in seen.troubles.items()
        if item.startswith("plugins.load:") and not why.startswith(SKIPPED)
    }
    for name, why in culprits.items():
        others = ",".join(each for each in _names() if each not in culprits)
        advice = f"Uninstall it, or leave it out: 'export {RESTRICT}={others}'. Tell its authors."
        yield Finding(area=AREA, name=name, value=f"loading it {why}", level="problem", advice=advice, stops=True)
    host = seen.facts.get("plugins.host")
    if host is None and culprits:
        return
    if host is None:
        value = f"cannot be loaded: {seen.troubles.get('plugins.host')}"
        advice = "See what is said under packages; 'fommctl plugins list --debug' shows where it fails."
        yield Finding(area=AREA, name="plugins", value=value, level="problem", advice=advice, stops=True)
        return
    yield from map(_plugin, host["plugins"])
    if not any(plugin["distribution"] == OWN for plugin in host["plugins"]):
        advice = "Unset FOMMCTL_PLUGINS or name fomm and faces in it; else run 'pip install --force-reinstall fommctl'."
        value = "none of fommctl's own is loaded"
        yield Finding(area=AREA, name="plugins", value=value, level="problem", advice=advice, stops=True)
    for warning in host["warnings"]:
        advice = "Correct FOMMCTL_PLUGINS; 'fommctl plugins list' shows the names."
        yield Finding(area=AREA, name="FOMMCTL_PLUGINS", value=warning, level="problem", advice=advice)
    for conflict in host["conflicts"]:
        # The host is loaded with conflicts refused wherever a model is.
        yield Finding(
            area=AREA,
            name="conflict",
            value=conflict["message"],
            level="problem",
            advice=conflict["hint"],
            stops=True,
        )
    yield from _detectors(seen)
    yield from _others("embedder", seen)
    yield from _others("metric", seen)


def _plugin(plugin: Mapping[str, Any]) -> Finding:
    offers = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in plugin["offers"].items())
    value = f"{plugin['distribution']} {plugin['version']}; {offers or 'offers nothing'}"
    if plugin["problem"]:
        own = plugin["distribution"] == OWN
        advice = (
            "Run 'pip install --force-reinstall fommctl'."
            if own
            else f"Run 'pip install --upgrade {plugin['distribution']}' or uninstall it; "
            f"'fommctl plugins show {plugin['name']}' has the traceback."
        )
        value = f"{plugin['distribution']} {plugin['version']}; {plugin['problem']}"
        return Finding(area=AREA, name=plugin["name"], value=value, level="problem", advice=advice, stops=own)
    return Finding(area=AREA, name=plugin["name"], value=value)


def _detectors(seen: Seen) -> Iterator[Finding]:
    """The detectors, one by one: which is taken, and what the others lack."""
    if "plugins.detector" in seen.troubles:
        yield _unknown("detector", seen)
        return
    found = seen.facts["plugins.detector"]
    taken: dict[str, str] = {}
    for each in found:
        if each["reason"] is None:
            first = taken.setdefault(each["subject"], each["name"]) == each["name"]
            value = f"{each['subject']}: ready{', taken where none is named' if first else ''}"
            yield Finding(area=AREA, name=each["name"], value=value)
        else:
            value = f"{each['subject']}: {each['reason']}"
            fetched = "package" not in each["reason"] and "raised" not in each["reason"]
            advice = f"It fetches weights when it is named: '--detector {each['name']}'." if fetched else None
            yield Finding(area=AREA, name=each["name"], value=value, level="note", advice=advice)
    if SUBJECT not in taken:
        advice = "Run 'pip install --force-reinstall dlib-bin'; until then give --crop none or --crop X,Y,SIZE."
        value = f"no detector of a {SUBJECT} is ready, so --crop auto cannot work"
        yield Finding(area=AREA, name="detectors", value=value, level="problem", advice=advice, stops=True)


def _others(kind: str, seen: Seen) -> Iterator[Finding]:
    """All of a kind in one line, and those that are not ready in one of their own."""
    if f"plugins.{kind}" in seen.troubles:
        yield _unknown(kind, seen)
        return
    found = seen.facts[f"plugins.{kind}"]
    ready = [each["name"] for each in found if each["reason"] is None]
    yield Finding(area=AREA, name=f"{kind}s", value=f"{len(ready)} of {len(found)} ready")
    reasons: dict[str, list[str]] = {}
    for each in found:
        if each["reason"] is not None:
            reasons.setdefault(each["reason"], []).append(each["name"])
    for reason, names in reasons.items():
        yield Finding(area=AREA, name=f"{kind}s", value=f"{', '.join(names)}: {reason}", level="note")


def _unknown(kind: str, seen: Seen) -> Finding:
    why = seen.troubles[f"plugins.{kind}"]
    advice = "Leave the plugin that fails out with FOMMCTL_PLUGINS, and tell its authors."
    return Finding(area=AREA, name=f"{kind}s", value=f"cannot be asked: {why}", level="problem", advice=advice)
