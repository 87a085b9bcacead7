"""`fommctl train`: a model from a folder of clips."""

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import typer

from fommctl.cli import console
from fommctl.cli.console import LogFormat, Session
from fommctl.cli.options import check_there, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.train.config import TrainConfig
    from fommctl.train.run import TrainResult

EXAMPLES = """Examples:

  fommctl train --preset vox --data vox-png --out runs/vox

  fommctl train --preset vox --data vox-png --out runs/vox --resume auto --max-time 3600

  fommctl train --preset faces-mini --data my-faces --init-from faces-mini --max-steps 2000

  torchrun --nproc-per-node 4 -m fommctl train --preset vox-adv --data vox-png --out runs/vox-adv
"""
SECONDS_BETWEEN_LINES = 30.0
# Of one step in the running means: losses jump from batch to batch.
_WEIGHT = 0.02


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.train.config import TrainConfig

    command(app, reads={"config": TrainConfig}, epilog=EXAMPLES)(train)


def train(session: Session, config: "TrainConfig") -> None:
    """Train a model; the run folder has checkpoints, metrics, curves and pictures, and can be resumed at any time."""
    check_there(config.data)
    from fommctl.host import load_host
    from fommctl.train.distributed import join
    from fommctl.train.run import run, unobserved

    with join(config.device) as processes:
        if not processes.first:
            # All processes meet the same warnings; one tells them.
            logging.getLogger("fommctl").setLevel(logging.ERROR)
        result = run(
            config,
            load_host(),
            processes=processes,
            observe=lambda total, first: (
                training_progress(session, total, first_step=first) if processes.first else unobserved(total, first)
            ),
        )
    if processes.first:
        session.summary(result.to_json(), _text(result))


def _text(result: "TrainResult") -> str:
    if result.model is None:
        return f"stopped after {result.steps} steps: resume with --resume auto\ncheckpoint: {result.checkpoint}"
    return f"done after {result.steps} steps\nmodel: {result.model}"


class Report(Protocol):
    """Called after each step."""

    def __call__(
        self, step: int, epoch: int, losses: Mapping[str, float], samples_per_s: float, waiting: float
    ) -> None:
        """Show progress.  step: steps done.  waiting: share of the time that the device waited for data, in [0, 1]."""
        ...


@contextlib.contextmanager
def training_progress(
    session: Session, total_steps: int | None, *, first_step: int = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Report]:
    """Show epoch, step and time left, and as running means samples/s, the losses and the time waiting for data.

    total_steps: of the whole run, None where only time limits it.  first_step: steps that were done before it was
    resumed.  On a terminal this is a display that vanishes at the end; elsewhere (a log file, --json, --log-format
    json) a line on stderr for the first step, every half minute, and for the last step; with --quiet nothing.
    """
    progress = _Progress(total_steps, first_step, clock)
    if session.shows_progress:
        with _display(session, progress) as report:
            yield report
    elif session.quiet:
        yield progress.add
    else:
        lines = _Lines(progress, session.log_format == LogFormat.JSON)
        try:
            yield lines.report
        finally:
            lines.finish()


@dataclass
class _Progress:
    """Numbers after the last step; but for step and epoch, running means."""

    total: int | None
    first: int
    clock: Callable[[], float]
    step: int = 0
    epoch: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    samples_per_s: float = 0.0
    waiting: float = 0.0

    seconds_per_step: float = 0.0

    def __post_init__(self) -> None:
        self.step = self.first
        self._time = self.clock()

    def add(self, step: int, epoch: int, losses: Mapping[str, float], samples_per_s: float, waiting: float) -> None:
        self.step, self.epoch = step, epoch
        done = max(1, step - self.first)
        spent, self._time = self.clock() - self._time, self.clock()
        # The first step, with all that is set up for it, is left out once there is another one.
        self.seconds_per_step += max(_WEIGHT, 1 / max(1, done - 1)) * (spent - self.seconds_per_step)
        weight = max(_WEIGHT, 1 / done)
        self.samples_per_s += weight * (samples_per_s - self.samples_per_s)
        self.waiting += weight * (waiting - self.waiting)
        self.losses = {
            name: value if name not in self.losses else self.losses[name] + weight * (value - self.losses[name])
            for name, value in losses.items()
        }

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or self.step == self.first:
            return None
        return max(0.0, (self.total - self.step) * self.seconds_per_step)

    @property
    def rate_text(self) -> str:
        if self.step == self.first:
            return "the first step takes longest"
        return f"{self.samples_per_s:.1f} samples/s, waiting for data {self.waiting:.0%}"

    @property
    def left_text(self) -> str:
        seconds = self.seconds_left
        return "" if seconds is None else f"{datetime.timedelta(seconds=round(seconds))} left"

    @property
    def step_text(self) -> str:
        return f"step {self.step}" if self.total is None else f"step {self.step}/{self.total}"

    @property
    def losses_text(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())


class _Lines:
    """A line on stderr for the first step, now and then, and for the last one."""

    def __init__(self, progress: _Progress, as_json: bool) -> None:
        self._progress = progress
        self._as_json = as_json
        self._told: int | None = None
        self._time = float("-inf")

    def report(self, step: int, epoch: int, losses: Mapping[str, float], samples_per_s: float, waiting: float) -> None:
        self._progress.add(step, epoch, losses, samples_per_s, waiting)
        if self._progress.clock() - self._time >= SECONDS_BETWEEN_LINES:
            self._tell()

    def finish(self) -> None:
        if self._told is not None and self._told != self._progress.step:
            self._tell()

    def _tell(self) -> None:
        now = self._progress
        parts = [now.step_text, f"epoch {now.epoch}", now.losses_text, now.rate_text, now.left_text]
        console.tell("; ".join(filter(None, parts)), as_json=self._as_json, logger=__name__)
        self._told, self._time = now.step, now.clock()


@contextlib.contextmanager
def _display(session: Session, progress: _Progress) -> Iterator[Report]:
    """Show a progress bar, and the losses below."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.text import Text

    bar = Progress(
        TextColumn("epoch {task.fields[now].epoch}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[now].step_text}", markup=False),
        TextColumn("{task.fields[now].left_text}", markup=False),
        console=session.stderr,
        auto_refresh=False,
    )
    task = bar.add_task("", total=progress.total, completed=progress.first, now=progress)

    def report(step: int, epoch: int, losses: Mapping[str, float], samples_per_s: float, waiting: float) -> None:
        progress.add(step, epoch, losses, samples_per_s, waiting)
        bar.update(task, completed=step)

    def picture() -> "RenderableType":
        return Group(bar, Text(progress.rate_text), Text(progress.losses_text))

    live = Live(get_renderable=picture, console=session.stderr, refresh_per_second=4, transient=True)
    with console.undisturbed(session.stderr), live:
        yield report
