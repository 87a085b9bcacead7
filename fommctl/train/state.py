"""The state of a run for resuming: networks, optimisers, average, position and random state, in one file.

The file is a checkpoint in the published layout (generator, kp_detector, discriminator, optimizer_*, epoch) with
additional entries, so that programs for published checkpoints can read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from fommctl.api.training import TrainableBackend
from fommctl.errors import ModelError, first_line
from fommctl.models.checkpoint import read_content
from fommctl.train.step import TrainingStep, WeightAverage

_OWN = "fommctl"


@dataclass
class Progress:
    """Progress of a run."""

    done: int = 0
    """Steps."""
    best: float | None = None
    """Lowest validation score so far."""
    validation: float | None = None
    """The last one."""
    seed: int = 0


def content(
    backend: TrainableBackend,
    step: TrainingStep,
    average: WeightAverage | None,
    progress: Progress,
    epoch: int,
    preset: str,
) -> dict[str, Any]:
    """Return the entries of a checkpoint; tensors are those of the run, not copies.  preset: as YAML text."""
    entries: dict[str, Any] = {name: module.state_dict() for name, module in backend.modules().items()}
    entries |= {name: optimiser.state_dict() for name, optimiser in step.optimisers.items()}
    entries["epoch"] = epoch
    entries[_OWN] = {
        "step": progress.done,
        "best": progress.best,
        "validation": progress.validation,
        "seed": progress.seed,
        "preset": preset,
    }
    entries["random_state"] = torch.get_rng_state()
    if torch.cuda.is_available():
        entries["cuda_random_state"] = torch.cuda.get_rng_state()
    if average is not None:
        entries["average"] = average.state_dict()
    return entries


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run to the CPU, without executing anything in it. Raises ModelError if it is not one."""
    try:
        entries = read_content(path)
    except ModelError as error:
        raise ModelError(f"{path} is damaged or not a checkpoint", "Name another one with --resume PATH.") from error
    if not isinstance(entries, dict) or _OWN not in entries:
        raise ModelError(
            f"{path} is not a checkpoint of a fommctl run", "Start from a finished model with --init-from instead."
        )
    try:
        progress(entries)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path} does not record the progress of its run", "Name another one with --resume PATH."
        ) from error
    return entries


def progress(entries: dict[str, Any]) -> Progress:
    """Return the progress recorded in a checkpoint."""
    own = entries[_OWN]
    scores = [None if own[name] is None else float(own[name]) for name in ("best", "validation")]
    # Runs of earlier versions may hold NaN.
    best, validation = (None if score is None or not isfinite(score) else score for score in scores)
    step, seed = int(own["step"]), int(own["seed"])
    if step < 0 or not 0 <= seed < 2**63:
        raise ValueError(f"step {step}, seed {seed}")
    return Progress(step, best, validation, seed)


def restore(
    entries: dict[str, Any], path: Path, backend: TrainableBackend, step: TrainingStep, average: WeightAverage | None
) -> None:
    """Restore the state that `content` has collected. Raises ModelError if it does not fit this configuration."""
    try:
        for name, module in backend.modules().items():
            module.load_state_dict(entries[name])
        for name, optimiser in step.optimisers.items():
            optimiser.load_state_dict(entries[name])
        if average is not None:
            # A run that began without an average starts one from the weights as they are.
            average.load_state_dict(entries.get("average") or {n: m.state_dict() for n, m in backend.modules().items()})
        torch.set_rng_state(entries["random_state"])
        if torch.cuda.is_available() and "cuda_random_state" in entries:
            torch.cuda.set_rng_state(entries["cuda_random_state"])
    except Exception as error:  # Optimisers that are fed what is none fail in any way.
        raise ModelError(
            f"{path} does not fit this preset: {first_line(error)}",
            "Resume with the preset and the options that the run was started with.",
        ) from error
