"""Versions and hardware: what may change the bits of a result besides inputs and options."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np
import torch

from fommctl import __version__
from fommctl.host import Host
from fommctl.machine import processor
from fommctl.media import codecs

DISTRIBUTIONS = ("dlib-bin", "face-alignment", "mediapipe")
"""Detectors' libraries, where they are installed."""


def environment(host: Host, device: torch.device) -> dict[str, Any]:
    """Describe this machine as JSON values; no host name, no paths."""
    versions = {"fommctl": __version__, "python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": np.__version__, **codecs.versions()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "plugins": {plugin.distribution: plugin.version for plugin in host.plugins},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List what changed between two environments, such as `torch 2.6.0, then 2.5.1`; values may be of any type."""
    before, after = _flat(then), _flat(now)
    return [
        f"{name} {after.get(name, 'absent')}, then {str(before.get(name, 'absent'))[:80]}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"plugin {key}" if name == "plugins" else str(key): each for key, each in value.items()}
        elif value is not None:
            flat[name] = value
    return flat
