"""How far a batch is: a live table of jobs on a terminal, a line for each job elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fommctl.cli import logs
from fommctl.cli.batch_tables import COLOURS, clock
from fommctl.cli.session import LogFormat, Session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.batch.jobs import Job
    from fommctl.batch.run import BatchPlan
    from fommctl.batch.schedule import Ended, Watcher

LATEST = 8
"""Jobs that ended are shown for so long as they are among the last ones."""


@contextlib.contextmanager
def watching(session: Session, plan: BatchPlan) -> Iterator[Watcher]:
    """Show jobs on stderr: a display that vanishes at the end on a terminal, elsewhere a line when a job ends; with
    --quiet nothing."""
    progress = _Progress(len(plan.to_run))
    if session.shows_progress:
        from rich.live import Live

        with Live(get_renderable=progress.picture, console=session.stderr, refresh_per_second=4, transient=True):
            yield progress
    elif session.quiet:
        yield progress
    else:
        yield _Lines(len(plan.to_run), as_json=session.log_format == LogFormat.JSON)


@dataclass(slots=True)
class _Row:
    """A job that is at work."""

    name: str
    began: float
    done: int = 0
    total: int | None = None


@dataclass(slots=True)
class _Progress:
    """What there is to show now."""

    total: int
    running: dict[int, _Row] = field(default_factory=dict)
    latest: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=LATEST))
    """Name, state and what there is to say."""
    counts: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def started(self, job: Job, attempt: int) -> None:
        self.running[job.number] = _Row(name_of(job), time.monotonic())

    def progress(self, job: Job, done: int, total: int | None) -> None:
        row = self.running.get(job.number)
        if row is not None:
            row.done, row.total = done, total

    def failed_once(self, job: Job, message: str) -> None:
        self.running.pop(job.number, None)
        self.latest.append((name_of(job), "failed", f"{message}; it will be tried again"))

    def ended(self, ended: Ended) -> None:
        self.running.pop(ended.job.number, None)
        self.counts[ended.state] = self.counts.get(ended.state, 0) + 1
        self.latest.append((name_of(ended.job), ended.state, said_of(ended)))

    def picture(self) -> RenderableType:
        """The jobs that ended last, those at work with a bar each, and how many are left."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, state, said in self.latest:
            table.add_row(Text(name), Text(state, COLOURS[state]), Text(said))
        for row in self.running.values():
            share = "" if row.total is None else f" of {row.total}"
            text = f"{row.done}{share} frames, {clock(time.monotonic() - row.began)}"
            table.add_row(Text(row.name), ProgressBar(total=row.total or 100, completed=row.done, width=24), Text(text))
        ended = sum(self.counts.values())
        said = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        passed = time.monotonic() - self.began
        # Jobs at work count by their frames: else the time that is left would grow until the next one ends.
        made = ended + sum(min(1.0, row.done / row.total) for row in self.running.values() if row.total)
        left = f", about {clock(passed / made * (self.total - made))} left" if 0 < made < self.total else ""
        line = f"{ended} of {self.total} jobs{f' ({said})' if said else ''}, {clock(passed)}{left}"
        return Group(table, Text(line, "bold"))


@dataclass(slots=True)
class _Lines:
    """A line on stderr whenever a job ends."""

    total: int
    as_json: bool
    done: int = 0

    def started(self, job: Job, attempt: int) -> None:
        pass

    def progress(self, job: Job, done: int, total: int | None) -> None:
        pass

    def failed_once(self, job: Job, message: str) -> None:
        self._tell(f"{name_of(job)}: {message}; it will be tried again")

    def ended(self, ended: Ended) -> None:
        self.done += 1
        self._tell(f"{self.done}/{self.total} {name_of(ended.job)}: {ended.state}, {said_of(ended)}".rstrip(", "))
        for warning in (ended.result or {}).get("warnings", ()):
            self._tell(f"{name_of(ended.job)}: {warning}", "warning")

    def _tell(self, message: str, level: str = "info") -> None:
        # Not through logging, which shows warnings only where nobody asked for more.
        text = f"{level}: {message}" if level != "info" else message
        print(logs.json_line(level, message, logger=__name__) if self.as_json else text, file=sys.stderr)


def name_of(job: Job) -> str:
    """The output's, with its folder where it is one of many pictures."""
    output = job.output
    return os.path.join(output.parent.name, output.name) if "%" in output.name else output.name


def said_of(ended: Ended) -> str:
    """Frames and time, or why it failed."""
    if ended.error is not None:
        return str(ended.error.get("message"))
    frames = (ended.result or {}).get("frames")
    warnings = len((ended.result or {}).get("warnings", ()))
    told = f"{warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
    parts = [f"{frames} frames" if frames is not None else "", clock(ended.seconds), told]
    return ", ".join(part for part in parts if part)
