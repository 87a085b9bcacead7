"""The choice for `--precision auto`: by CPU instructions and model, decided once per machine and cached."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fommctl.errors import OutputError
from fommctl.files import atomic_write, read_regular
from fommctl.home import home
from fommctl.machine import processor
from fommctl.networks.inference.convolutions import bf16_instructions
from fommctl.networks.inference.devices import (
    PRECISIONS,
    CpuPrecisions,
    cpu_precisions,
    resolve_precision,
    resolve_training_precision,
)

log = logging.getLogger(__name__)
RULES = 1
"""Version of the table of `cpu_precisions`: after a change, machines decide again."""
_FACTS = "cpu", "torch", "instructions", "rules"


@dataclass(frozen=True, slots=True)
class Decision:
    """The precision in which this machine computes."""

    precisions: CpuPrecisions
    instructions: str
    path: Path
    """Path of the file that holds the decision."""
    kept: bool
    """False if the file cannot be written: each process then makes the same decision itself."""


def choose_precision(name: str, device: torch.device, modules: Mapping[str, nn.Module]) -> str:
    """Return the precision of inference by its name; `auto` for these networks on this device.

    Raises UsageError as `resolve_precision` does.
    """
    on_cpu = "fp32"
    if name == "auto" and device.type == "cpu":
        on_cpu = decision().precisions.for_channels(widest(modules))
    return resolve_precision(name, device, on_cpu=on_cpu)


def choose_training_precision(name: str, device: torch.device) -> str:
    """Return the precision of training by its name, or for `auto`. Raises UsageError as `resolve_training_precision`
    does."""
    on_cpu = decision().precisions.training if name == "auto" and device.type == "cpu" else "fp32"
    if name == "bf16" and device.type == "cpu" and bf16_instructions() == "none":
        # Measured: thirty times as long as fp32.
        log.warning("--precision bf16: this processor has no instructions for it; fp32 is many times as fast")
    return resolve_training_precision(name, device, on_cpu=on_cpu)


def widest(modules: Mapping[str, nn.Module]) -> int:
    """Return channels of the widest convolution, in and out, of the networks that render."""
    return max(
        (
            min(weight.shape[:2])
            for name, module in modules.items()
            if name != "discriminator"
            for weight in module.parameters()
            if weight.ndim == 4
        ),
        default=0,
    )


def decision() -> Decision:
    """Return the decision of this machine: the kept one where CPU, torch and instructions are still the same."""
    facts = {
        "cpu": processor()[0],
        "torch": torch.__version__,
        "instructions": bf16_instructions(),
        "rules": RULES,
    }
    # Machines that share a home folder have separate files.
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return _decision(home() / "cache" / f"precision-{digest}.json", tuple(facts.items()))


@cache
def _decision(path: Path, items: tuple[tuple[str, Any], ...]) -> Decision:
    facts = dict(items)
    found = _read(path, facts)
    if found is None:
        found = cpu_precisions(facts["instructions"])
        log.debug("--precision auto: %s", found)
        # An unwritable home is no problem: the next process decides the same.
        with suppress(OutputError, OSError), atomic_write(path) as temporary:
            temporary.write_text(json.dumps({**facts, "precisions": asdict(found)}, indent=2) + "\n", encoding="utf-8")
    return Decision(found, facts["instructions"], path, path.is_file())


def _read(path: Path, facts: Mapping[str, Any]) -> CpuPrecisions | None:
    """Return the cached decision; None if there is none, or it is damaged or from another machine."""
    try:
        held = json.loads(read_regular(path))
        precisions = CpuPrecisions(**{field.name: held["precisions"][field.name] for field in fields(CpuPrecisions)})
        usable = {name: held[name] for name in _FACTS} == facts and set(asdict(precisions).values()) <= {
            *PRECISIONS[:2]
        }
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return precisions if usable else None
