"""Training a model by a preset on a folder of clips, into a run folder with checkpoints, metrics and pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.api.specs import StageEvent
from fommctl.errors import InterruptedRunError
from fommctl.host import Host
from fommctl.models.precision import choose_training_precision
from fommctl.networks.inference.devices import resolve_device
from fommctl.presets.config import check_seed
from fommctl.train import run_folder
from fommctl.train import state as training_state
from fommctl.train.config import TrainConfig
from fommctl.train.distributed import Processes
from fommctl.train.loop import Loop, Report, stoppable
from fommctl.train.setup import Setup, build

log = logging.getLogger(__name__)

Observe = Callable[[int, int], AbstractContextManager[Report]]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    steps: int
    """Steps done in all, including those before resuming."""
    epoch: int
    losses: Mapping[str, float]
    """Losses of the last step; empty if no step was left to do."""
    validation: float | None
    """Mean absolute error of reconstructed validation frames at the end, in [0, 1]; None without validation clips."""
    model: Path | None
    """File of the finished weights; None if the run has not reached its end."""
    checkpoint: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "run": str(self.run),
            "steps": self.steps,
            "epoch": self.epoch,
            "losses": dict(self.losses),
            "validation_l1": self.validation,
            "model": None if self.model is None else str(self.model),
            "checkpoint": str(self.checkpoint),
        }


def unobserved(total: int, first: int) -> AbstractContextManager[Report]:
    """Return an observer that does nothing."""
    return nullcontext(lambda step, epoch, losses, samples_per_s, waiting: None)


def run(
    config: TrainConfig, host: Host, *, processes: Processes | None = None, observe: Observe = unobserved
) -> TrainResult:
    """Train until the preset's last epoch, `max_steps` or `max_time`, whichever comes first.

    observe: called with the steps of the whole run and those already done; returns a context manager of the function to
    call after each step.

    Raises UsageError (preset, an output that is not an empty folder), InputError (data), MissingError (weights of the
    perceptual network, a detector), ModelError (checkpoint), OutputError (disk full; the last good checkpoint is kept),
    InterruptedRunError after a signal, once the checkpoint is written.
    """
    processes = processes or Processes()
    check_seed(config.seed)
    device = resolve_device(processes.device or config.device)
    # One for all: the machines of a cluster may differ.
    precision = processes.from_first(lambda: choose_training_precision(config.precision, device))
    with ExitStack() as stack:
        if processes.first:
            # Before the checkpoint is chosen: another training may be writing the next one.
            stack.enter_context(run_folder.lock_run(config.folder))
        resume_from = processes.from_first(lambda: run_folder.open_run(config.folder, config.resume))
        entries = None if resume_from is None else training_state.read(resume_from)
        progress = training_state.Progress(seed=config.seed) if entries is None else training_state.progress(entries)
        setup = build(config, host, device, precision, processes, progress.seed, fresh=entries is None)
        if entries is not None and resume_from is not None:
            training_state.restore(entries, resume_from, setup.backend, setup.step, setup.average)
            if processes.first:
                run_folder.set_newer_aside(config.folder, progress.done)
        del entries
        if processes.first:
            host.started(StageEvent(stage="train", details={"config": config.to_json(), "first_step": progress.done}))
        stop = stack.enter_context(stoppable(config.max_time))
        loop = Loop(config, setup, processes, progress)
        report = stack.enter_context(observe(setup.schedule.total, progress.done))
        loop.run(stop, report)
        result = _finished(config, setup, loop, processes.any(stop.signalled), processes)
        if processes.first:
            host.finished(StageEvent(stage="train", details=result.to_json()))
        return result


def _finished(config: TrainConfig, setup: Setup, loop: Loop, signalled: bool, processes: Processes) -> TrainResult:
    done = loop.progress.done
    checkpoint = run_folder.step_checkpoint(config.folder, done)
    if signalled and done < setup.schedule.total:
        if loop.idle:
            raise InterruptedRunError("interrupted before the first step", "Nothing was written.")
        raise InterruptedRunError(
            f"stopped after {done} of {setup.schedule.total} steps; {checkpoint} is written",
            "Run the same command with --resume auto.",
        )
    model = None
    if done >= setup.schedule.total and processes.first:
        model = loop.write_model()
    return TrainResult(
        config.folder,
        done,
        setup.schedule.epoch(max(0, done - 1)),
        loop.losses,
        loop.progress.validation,
        model,
        checkpoint,
    )
