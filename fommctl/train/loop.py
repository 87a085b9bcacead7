"""The training loop, and everything that it writes."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fommctl import signals
from fommctl.api.protocols import Backend
from fommctl.api.training import ThinPlateTransform, TrainingBatch, TrainingView
from fommctl.datasets.clips import Clip
from fommctl.errors import ModelError
from fommctl.models.checkpoint import write_native
from fommctl.train import run_folder
from fommctl.train import state as training_state
from fommctl.train.distributed import Processes
from fommctl.train.logs import MetricsLog, TensorBoardLog, save_training_grid, training_grid
from fommctl.train.pairs import batches, worker_crashes_as_errors
from fommctl.train.setup import Setup
from fommctl.train.step import StepResult

if TYPE_CHECKING:
    from fommctl.train.config import TrainConfig


_TWICE = 1.0
"""Seconds within which a repetition of the same signal does not count as a second one."""


class Stop:
    """Whether the run should end, and why."""

    def __init__(self, max_time: float | None = None) -> None:
        """Set the deadline.  max_time: seconds from now."""
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self.signalled = False

    @property
    def due(self) -> bool:
        """Whether a signal has arrived or the time has run out."""
        return self.signalled or (self._deadline is not None and time.monotonic() >= self._deadline)


@contextmanager
def stoppable(max_time: float | None = None) -> Iterator[Stop]:
    """Let the first SIGINT, SIGTERM or SIGHUP only set `signalled`; the next raises KeyboardInterrupt.

    The same signal within a second does not count again: a cluster signals all processes, and so does their launcher.
    Signals that the caller ignores (nohup, a background job) stay ignored; outside the main thread, nothing is changed.
    """
    stop = Stop(max_time)
    last: tuple[int, float] = (0, 0.0)

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal last
        (previous, then), last = last, (number, time.monotonic())
        if stop.signalled and (number != previous or last[1] - then > _TWICE):
            raise KeyboardInterrupt
        stop.signalled = True

    with signals.handled(handle):
        yield stop


FRAMES = 8
"""Frames of each clip, spread evenly."""
CLIPS = 32
"""Most clips for validation, the first by name, so that it takes little of the time."""


def reconstruction_error(
    backend: Backend, clips: Sequence[Clip], frame_shape: tuple[int, int, int], device: torch.device
) -> float:
    """Return the mean absolute error in [0, 1] of frames reconstructed from the clip's first frame, averaged over the
    clips. Leaves the networks in eval mode."""
    from fommctl.media.random_access import read_frames

    renderer = backend.prepare(device, "fp32", fast=False)
    errors = []
    for clip in clips[:CLIPS]:
        indices = np.linspace(0, clip.frames - 1, min(FRAMES, clip.frames)).round().astype(int).tolist()
        frames = _tensor(read_frames(clip.path, indices, size=(frame_shape[1], frame_shape[0])), device)
        context = renderer.encode_source(frames[:1])
        error = [
            (renderer.render(context, renderer.detect(frame[None])) - frame[None]).abs().mean() for frame in frames
        ]
        errors.append(float(torch.stack(error).mean()))
    return float(np.mean(errors))


def _tensor(frames: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float() / 255


Report = Callable[[int, int, Mapping[str, float], float, float], None]
"""Called with steps done, epoch, losses, samples a second, and the share of the time spent waiting for data."""
Logs = list[MetricsLog | TensorBoardLog]
PICTURED_PAIRS = 4


class Loop:
    """Runs steps and writes files; `progress`, `losses` and `idle` describe its state."""

    def __init__(
        self, config: TrainConfig, setup: Setup, processes: Processes, progress: training_state.Progress
    ) -> None:
        self._config = config
        self._setup = setup
        self._processes = processes
        self.progress = progress
        self.losses: dict[str, float] = {}
        self.idle = True
        """Whether no step was done yet in this invocation."""
        self._saved = progress.done if run_folder.step_checkpoint(config.folder, progress.done).exists() else -1

    def run(self, stop: Stop, report: Report) -> None:
        """Run until the last step, or until `stop` is due in one of the processes; end with a checkpoint.

        Nothing is written before a step is done.
        """
        first = self.progress.done
        with ExitStack() as stack:
            stack.enter_context(worker_crashes_as_errors(lambda: stop.signalled))
            logs: Logs | None = None
            loader = batches(
                self._setup.pairs,
                batch_size=self._setup.params.batch_size,
                first_step=first,
                rank=self._processes.rank,
                world=self._processes.world,
                workers=self._config.workers,
                steps=max(0, self._setup.schedule.total - first),
            )
            stack.callback(loader.close)
            begun = time.monotonic()
            for raw in loader:
                if self.idle and self._processes.any(stop.signalled):
                    return
                waited = time.monotonic() - begun
                result = self._step(raw)
                spent = time.monotonic() - begun
                if logs is None:
                    logs = self._logs(first, stack)
                self._keep_up(result, spent, waited, logs, report)
                begun = time.monotonic()
                if self._processes.any(stop.due):
                    break
            if logs is None:
                self._logs(first, stack)
        if self._saved != self.progress.done:
            self.save()

    def _logs(self, first: int, stack: ExitStack) -> Logs:
        if not self._processes.first:
            return []
        out = self._config.folder
        if self._saved < 0:
            run_folder.mark(out)
        text = self._setup.preset.text()
        run_folder.write_atomically(out / "preset.yaml", lambda path: path.write_text(text, encoding="utf-8"))
        return [
            MetricsLog(out, from_step=first),
            stack.enter_context(TensorBoardLog(out, from_step=first)),
        ]

    def _step(self, raw: dict[str, Tensor]) -> StepResult:
        number = self.progress.done
        self._setup.step.set_rate(self._setup.schedule.rate(number))
        result = self._setup.step(self._batch(raw))
        bad = [name for name, value in result.losses.items() if not math.isfinite(value)]
        if bad:
            saved = run_folder.step_checkpoint(self._config.folder, self._saved)
            last = f"go on from {saved}" if self._saved >= 0 else ""
            raise ModelError(
                f"the loss '{bad[0]}' is not finite at step {number}; training stopped",
                f"Lower the learning rates or set train_params.max_grad_norm, and {last or 'start again'}.",
            )
        if self._setup.average is not None:
            self._setup.average.update(number)
        self.losses = dict(result.losses)
        return result

    def _batch(self, raw: dict[str, Tensor]) -> TrainingBatch:
        device, params = self._setup.device, self._setup.params.transform_params
        pieces = [
            ThinPlateTransform.random(
                1,
                sigma_affine=params.sigma_affine,
                sigma_tps=params.sigma_tps,
                points_tps=params.points_tps,
                # Seeded by the pair, not the process, so that the number of processes changes nothing.
                generator=_random(self.progress.seed, draw),
            )
            for draw in raw["draw"].tolist()
        ]
        controls = [piece.control_params for piece in pieces if piece.control_params is not None]
        transform = ThinPlateTransform(
            torch.cat([piece.theta for piece in pieces]).to(device),
            torch.cat(controls).to(device) if controls else None,
        )
        names = ("source_landmarks", "driving_landmarks")
        marks = {name: raw[name].to(device) for name in names if name in raw}
        number = self.progress.done
        return TrainingBatch(
            raw["source"].to(device, non_blocking=True),
            raw["driving"].to(device, non_blocking=True),
            transform,
            step=number,
            epoch=self._setup.schedule.epoch(number),
            **marks,
        )

    def _keep_up(self, result: StepResult, spent: float, waited: float, logs: Logs, report: Report) -> None:
        """Do everything that follows a step: validation, the line of the log, pictures, the checkpoint."""
        number, schedule = self.progress.done, self._setup.schedule
        self.progress.done += 1
        self.idle = False
        due = schedule.saves_after(self.progress.done)
        speed, waiting = self._setup.params.batch_size / spent, waited / spent
        values = {"waiting": waiting, "learning_rate": self._setup.step.rate}
        if due and self._setup.validation and self._processes.first:
            values["validation_l1"] = self._validate()
        for log in logs:
            if isinstance(log, MetricsLog):
                norms = {f"norm_{name}": value for name, value in result.gradient_norms.items()}
                log.write(
                    step=number,
                    epoch=schedule.epoch(number),
                    losses=result.losses,
                    samples_per_s=speed,
                    **values,
                    **norms,
                )
            else:
                log.scalars(number, result.losses, samples_per_s=speed, **values)
        self._picture(result.view, logs)
        if due:
            # After the line: what lies after the last checkpoint is cut off where the run goes on.
            self.save()
        if self._processes.first:
            report(self.progress.done, schedule.epoch(number), result.losses, speed, waiting)

    def _picture(self, view: TrainingView | None, logs: Logs) -> None:
        done, every = self.progress.done, self._config.pictures_every
        if view is None or not self._processes.first or not every or (done % every and done != 1):
            return
        grid = training_grid(view, self._setup.preset.visualizer_params, rows=PICTURED_PAIRS)
        save_training_grid(self._config.folder, done, grid)
        for log in logs:
            if isinstance(log, TensorBoardLog):
                log.picture(done, "pairs", grid)

    def _validate(self) -> float:
        setup = self._setup
        with ExitStack() as stack:
            if setup.average is not None:
                stack.enter_context(setup.average.applied())
            score = reconstruction_error(setup.backend, setup.validation, setup.preset.frame_shape, setup.device)
        for phase in setup.step.phases:
            phase.module.train()
        # NaN is not a score: no later score would compare as better.
        self.progress.validation = score if math.isfinite(score) else None
        return score

    def save(self) -> None:
        """Write the checkpoint of the steps done; nothing if weights are NaN."""
        done, out = self.progress.done, self._config.folder
        if not self._processes.first:
            return
        for group, module in self._setup.backend.modules().items():
            if not all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values()):
                raise ModelError(
                    f"weights of {group} are not finite after step {done}; training stopped",
                    "Lower the learning rates, and resume with --resume auto from the last good checkpoint.",
                )
        score, best = self.progress.validation, self.progress.best
        better = score is not None and (best is None or score < best)
        if better:
            self.progress.best = score
        schedule = self._setup.schedule
        entries = training_state.content(
            self._setup.backend,
            self._setup.step,
            self._setup.average,
            self.progress,
            schedule.epoch(done),
            self._setup.preset.text(),
        )
        targets = [run_folder.best_checkpoint(out)] if better else []
        targets += [run_folder.epoch_checkpoint(out, schedule.epoch(done))] if schedule.keeps_after(done) else []
        # Last: a run that is killed before repeats its last steps, and with them writes the other files.
        targets += [run_folder.step_checkpoint(out, done)]
        run_folder.write_atomically(targets[0], lambda path: torch.save(entries, path))
        for target in targets[1:]:
            run_folder.write_atomically(target, lambda path: shutil.copyfile(targets[0], path))
        run_folder.mark(out, targets[-1])
        run_folder.keep_last(run_folder.checkpoints_folder(out), self._config.keep)
        self._saved = done

    def write_model(self) -> Path:
        """Return the finished weights (the average, where one was kept) in the native format."""
        setup = self._setup
        modules = {name: setup.backend.modules()[name] for name in setup.backend.needed_groups()}
        groups = (
            {name: module.state_dict() for name, module in modules.items()}
            if setup.average is None
            else setup.average.state_dict()
        )
        summary = {
            "steps": self.progress.done,
            "epoch": setup.schedule.epoch(self.progress.done),
            "pairs": self.progress.done * setup.params.batch_size,
            "seed": self.progress.seed,
            "precision": setup.precision,
            "validation_l1": self.progress.validation,
        }
        target = self._config.folder / run_folder.MODEL
        write_native(
            target,
            groups,
            {
                "backend": setup.preset.backend,
                "preset": setup.preset.text(),
                "licence": "that of the data it was trained on",
                "training": json.dumps(summary),
            },
        )
        return target


def _random(seed: int, draw: int) -> torch.Generator:
    """Return the generator of one pair."""
    state = np.random.SeedSequence([seed, draw]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))
