"""Trainings, several at a time: each job is one system with one seed, done as `fommctl train` does it."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.errors import FommctlError
from fommctl.machine import usable_cores
from fommctl.output_folder import replace_text
from fommctl.train.config import TrainConfig
from fommctl.train.loop import Report
from fommctl.train.run import run
from fommctl.workers import Tell

MODEL, RECORD = "model.safetensors", "training.json"
_LOADERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """One training."""

    preset: str
    """Name or path."""
    name: str
    """Of the system."""
    seed: int
    run: Path
    """Its folder."""
    data: Path
    steps: int
    sets: tuple[str, ...]
    device: str
    precision: str

    @property
    def model(self) -> Path:
        """The weights, once they are trained."""
        return self.run / MODEL

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end before."""
        return self.model.is_file() and (self.run / RECORD).is_file()

    def record(self) -> dict[str, Any]:
        """What is known of a finished training: `seconds`, `parameters` and the last `losses`."""
        found: dict[str, Any] = json.loads((self.run / RECORD).read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a training came to nothing."""

    message: str
    hint: str | None
    exit_code: int


def prepare() -> Callable[[TrainingJob, Tell], Failed | None]:
    """The function that trains, for `run_jobs`."""
    import torch

    from fommctl.host import load_host

    host = load_host()

    def train(job: TrainingJob, tell: Tell) -> Failed | None:
        apart = multiprocessing.current_process().daemon
        if apart:
            # Several trainings side by side are faster with a thread each than with all threads each.
            torch.set_num_threads(1)
        config = TrainConfig(
            preset=job.preset,
            data=job.data,
            out=job.run,
            resume="auto",
            max_steps=job.steps,
            device=job.device,
            precision=job.precision,  # type: ignore[arg-type]  # checked there
            seed=job.seed,
            sets=job.sets,
            # A worker process may have no processes of its own.
            workers=0 if apart else min(_LOADERS, usable_cores() - 1),
            keep=1,
        )
        begun = time.monotonic()
        try:
            result = run(config, host, observe=lambda total, first: _observer(tell))
        except FommctlError as error:
            if not apart and error.exit_code == 130:
                raise
            return Failed(error.message, error.hint, error.exit_code)
        record = {"seconds": round(time.monotonic() - begun, 1), "losses": dict(result.losses)}
        replace_text(job.run / RECORD, json.dumps(record, indent=2) + "\n")
        return None

    return train


def _observer(tell: Tell) -> AbstractContextManager[Report]:
    """Tells each step; where nobody listens any more, the training writes its checkpoint and ends."""

    def report(step: int, epoch: int, losses: Mapping[str, float], samples_per_s: float, waiting: float) -> None:
        try:
            tell(step, None)
        except SystemExit:
            signal.raise_signal(signal.SIGTERM)

    return nullcontext(report)
