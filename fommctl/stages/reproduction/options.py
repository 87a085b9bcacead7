"""What to reproduce, and how: one frozen configuration."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fommctl.animate.config import check_choice
from fommctl.errors import UsageError
from fommctl.presets.config import check_seed
from fommctl.stages.reproduction.paper import BENCHMARKS, FAMILIES

STEPS = 1000
METRICS = ("l1.paper", "akd.strict", "mkr.strict", "psnr", "ssim")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReproduceConfig:
    """See `fommctl reproduce --help` for the meaning of each option."""

    output: Path
    data: Path | None = None
    """None: the synthetic set, which is made in the output folder."""
    family: str = "small"
    systems: tuple[str, ...] = ()
    """Presets by name or path; empty: those of the family."""
    steps: int = STEPS
    """Of each training."""
    seeds: int = 3
    """How many trainings of each system; their seeds count from `seed`."""
    seed: int = 0
    metrics: tuple[str, ...] = METRICS
    keypoints: str = "auto"
    benchmark: str = "tai-chi-hd"
    """Which of the paper's numbers stand beside ours."""
    sets: tuple[str, ...] = ()
    """KEY=VALUE for all systems, or PATTERN:KEY=VALUE for those whose preset has such a name."""
    workers: int | None = None
    """Processes, each of which trains one system; None: one a processor on a CPU, none but this one elsewhere."""
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_choice("--preset-family", self.family, tuple(FAMILIES))
        check_choice("--benchmark", self.benchmark, BENCHMARKS)
        check_seed(self.seed)
        for name, least in (("steps", 1), ("seeds", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}", f"Give a number from {least} on.")
        if not self.metrics:
            raise UsageError("there is no metric to compare by", "Leave --metrics out, or name one.")
        twice = [name for name in self.systems if self.systems.count(name) > 1]
        if twice:
            raise UsageError(f"--systems names '{twice[0]}' twice", "Name each system once.")

    @property
    def presets(self) -> tuple[str, ...]:
        """Of the systems, in the order of the table."""
        return self.systems or tuple(FAMILIES[self.family])

    def sets_of(self, preset: str) -> tuple[str, ...]:
        """The KEY=VALUE texts that concern a system."""
        return tuple(text for pattern, text in map(_scoped, self.sets) if fnmatch.fnmatchcase(preset, pattern))

    def settled(self) -> dict[str, Any]:
        """What all trained models depend on: what a run that goes on must not change."""
        return {
            "data": None if self.data is None else str(self.data.resolve()),
            "steps": self.steps,
            "precision": self.precision,
        }

    def to_json(self) -> dict[str, Any]:
        """For listeners and for what is saved beside the results."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**plain, "output": str(self.output), "data": None if self.data is None else str(self.data)}


def _scoped(text: str) -> tuple[str, str]:
    """The pattern of presets and the KEY=VALUE of `PATTERN:KEY=VALUE`."""
    key, _, _ = text.partition("=")
    pattern, colon, _ = key.rpartition(":")
    return (pattern, text[len(pattern) + 1 :]) if colon else ("*", text)


def unused_sets(sets: Sequence[str], presets: Sequence[str]) -> list[str]:
    """Those that concern none of the presets."""
    return [text for text in sets if not any(fnmatch.fnmatchcase(preset, _scoped(text)[0]) for preset in presets)]
