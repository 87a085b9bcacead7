"""A job of a batch: one animation with the model that renders it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.errors import UsageError

__all__ = ["Job", "ModelChoice"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One line of a job file; with patterns, one of those that it stands for. Can be pickled."""

    number: int
    """In the whole batch, from 1."""
    where: str
    """`line 3`."""
    config: AnimateConfig
    """With absolute paths, and an output."""
    choice: ModelChoice

    def __post_init__(self) -> None:
        if self.config.output is None:
            raise UsageError(f"{self.where}: the job has no output", "Give it one.")

    @property
    def output(self) -> Path:
        """Absolute path of the result."""
        return self.config.result_path
