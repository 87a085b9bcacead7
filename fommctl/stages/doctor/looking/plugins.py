"""Which plugins load, and which of their detectors, embedders and metrics are ready."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fommctl.host import Host, load_host
from fommctl.stages.doctor.child import describe

KINDS = ("detector", "embedder", "metric")


def look(what: str) -> Any:
    """what: `host`, or one of KINDS."""
    return _host() if what == "host" else _readiness(what)


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
    return [{"name": spec.name, "subject": getattr(spec, "subject", ""), "reason": _reason(spec)} for spec in specs]


def _reason(spec: Any) -> str | None:
    """Why a spec is not ready; None where it is."""
    try:
        reason = spec.ready()
    except Exception as error:
        return f"asking for it raised {describe(error)}"
    return None if reason is None else str(reason)
