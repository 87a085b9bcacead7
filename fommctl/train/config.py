"""The options of `train`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run is made of."""

    preset: str
    data: Path
    out: Path
    resume: str | None = None
    """None, `auto`, or the path of a checkpoint or run."""
    init_from: str | None = None
    """Model whose weights the run starts from."""
    max_steps: int | None = None
    max_time: float | None = None
    """Seconds, of this call."""
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    sets: tuple[str, ...] = ()
    workers: int = 1
    """Processes that decode and augment."""
    pictures_every: int = 500
    """Steps between picture grids; 0 for none."""
    keep: int = 3
    """Checkpoints of single steps that are kept."""

    def to_json(self) -> dict[str, Any]:
        """For listeners of stage events."""
        return {**asdict(self), "data": str(self.data), "out": str(self.out), "sets": list(self.sets)}
