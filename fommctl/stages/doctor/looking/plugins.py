"""Which plugins load, and which of their detectors, embedders and metrics are ready."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from fommctl.host import GROUP, Host, load_host
from fommctl.plugin import why_not_ready

KINDS = ("detector", "embedder", "metric")


def look(what: str) -> Any:
    """what: `load:NAME` of an entry point, `host`, or one of KINDS."""
    if what.startswith("load:"):
        return _load(what.partition(":")[2])
    return _host() if what == "host" else _readiness(what)


def _load(name: str) -> None:
    """Import every entry point of this name: who ends or stops the process is known by it. What it raises, and whether
    it is wanted at all, the host tells."""
    for entry in metadata.entry_points(group=GROUP, name=name):
        with contextlib.suppress(Exception, SystemExit):
            entry.load()


@cache
def _loaded() -> Host:
    return load_host(check=False)


def _host() -> dict[str, Any]:
    host = _loaded()
    return {
        "plugins": [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "api": info.api,
                "offers": {kind: len(names) for kind, names in info.registers.items()},
                "problem": info.problem,
            }
            for info in host.plugins
        ],
        "warnings": list(host.warnings),
        "conflicts": [{"message": each.message, "hint": each.hint} for each in host.conflicts()],
    }


def _readiness(kind: str) -> list[dict[str, Any]]:
    """Each spec of this kind with why it is not ready, the one of the highest priority first."""
    offered: Mapping[str, Any] = getattr(_loaded(), f"{kind}s")
    specs = sorted(offered.values(), key=lambda spec: -getattr(spec, "priority", 0))
    return [
        {"name": spec.name, "subject": getattr(spec, "subject", ""), "reason": why_not_ready(spec)} for spec in specs
    ]
