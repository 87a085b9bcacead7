"""`fommctl batch`: many animations from a file of jobs; a live table on a terminal, a line for each elsewhere."""

import contextlib
import datetime
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli import console
from fommctl.cli.console import LogFormat, Session, counted
from fommctl.cli.options import check_there, command
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fommctl.batch.config import BatchConfig
    from fommctl.batch.jobs import Job
    from fommctl.batch.run import BatchPlan, BatchResult
    from fommctl.batch.schedule import Ended, Watcher

NARROWEST = 78
COLOURS = {"done": "green", "kept": "dim", "failed": "red", "not started": "yellow"}
LATEST = 8
"""Jobs that ended are shown for so long as they are among the last ones."""
FIELDS = "Default values of job fields"
PANELS = (FIELDS, "How jobs are run")
EXAMPLES = """A CSV job file (# starts a comment; relative paths are relative to the folder of the file):

  source,driving,output,crop,audio
  anna.png,takes/*.mp4,out/{source.stem}_{driving.stem}.mov,,
  shots/*.png,wave.mp4,out/{number:03}.mp4,none,none

The same in YAML; JSON Lines (.jsonl) has one object per line:

  defaults: {crop: none, model: vox}
  jobs:
    - {source: anna.png, driving: "takes/*.mp4", output: "out/{source.stem}_{driving.stem}.mov"}

A job has the fields source, driving and output, and any option of animate (best_frame or best-frame), including model
and device. Patterns (*, ?, **) in source and driving expand to all matches, each source with each driving video. An
output may contain {number}, {source.stem}, .name, .suffix, .parent, .folder, the same for {driving...}, and {model},
{preset}, {size}, ...

Examples:

  fommctl batch shots.csv --dry-run

  fommctl batch shots.csv --workers 2 --retry 1 --timeout 3600

  fommctl batch shots.yaml --default crop=none --model vox --devices cuda:0,cuda:1 --json

  fommctl batch shots.edl --default source=anna.png --handles 8

In a timeline (.otio, .edl), each clip is a job, with its media as driving video; results are named after the clips.
status.jsonl, next to the file, records what was done. Run the same command again to render only what is missing, failed
or changed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.animate.config import ModelChoice
    from fommctl.batch.config import BatchConfig

    command(app, reads={"config": BatchConfig}, given={"choice": ModelChoice}, panels=PANELS, epilog=EXAMPLES)(batch)


def batch(
    session: Session,
    config: "BatchConfig",
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Result, with fields such as {number}. Default: {source.stem}--{driving.stem}.mp4 next to JOBS.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any field, such as crop=none; repeatable.", rich_help_panel=FIELDS),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-O",
            "--option",
            metavar="NAME=VALUE",
            help="Option of the model's family, as for animate; repeatable.",
            rich_help_panel=FIELDS,
        ),
    ] = None,
    choice: "dict[str, Any]",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that were not made by batch.", rich_help_panel=FIELDS)
    ] = False,
) -> None:
    """Animate all jobs of a file, except those that are already done."""
    check_there(config.jobs)
    fields = {**_defaults(default or []), **choice}
    fields |= {"output": output} if output is not None else {}
    fields |= {"overwrite": True} if overwrite else {}
    fields |= {"options": option} if option else {}
    config = replace(config, defaults=fields)
    from fommctl.batch.run import exit_code, make_plan, run
    from fommctl.host import load_host

    host = load_host()
    with session.progress("checking", unit="jobs") as report:
        plan = make_plan(config, host, report)
    if config.dry_run:
        session.result(plan.to_json(), None if session.json else plan_table(plan))
        _exit(6 if plan.invalid else 0)
        return
    with watching(session, plan) as watcher, _told_once():
        result = run(config, host, plan, watcher)
    session.summary(result.to_json(), None if session.json else summary(result))
    _exit(exit_code(result))


def _defaults(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--default {text}: expected KEY=VALUE", "For example: --default crop=none")
        if value:
            found[name.strip()] = value
    return found


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def plan_table(plan: "BatchPlan") -> "RenderableType":
    """Return every job with what would be done about it and why."""
    from rich.console import Group
    from rich.text import Text

    rows = plan.to_json()["plan"]
    table = _table("job", "output", "", "why")
    for row in rows:
        wrong = row["output"] is None or (not row["runs"] and row["reason"] != "done before")
        what, colour = ("runs", "green") if row["runs"] else ("cannot run", "red") if wrong else ("kept", "dim")
        table.add_row(Text(row["where"]), Text(_short(row["output"])), Text(what, colour), Text(row["reason"]))
    counts = f"{len(plan.to_run)} jobs would run, {len(plan.planned) - len(plan.to_run)} are done"
    wrong_count = f", {len(plan.invalid)} cannot run" if plan.invalid else ""
    return Group(table, Text(counts + wrong_count, "bold"))


def summary(result: "BatchResult") -> "RenderableType":
    """Return what was done now, what failed and why, and how many were done before."""
    from rich.console import Group
    from rich.text import Text

    counts = result.counts
    table = _table("job", "output", "state", "time", "")
    for row in result.jobs:
        if row["state"] == "kept":
            continue
        frames = counted(row["frames"], "frame") if row["frames"] is not None else ""
        frames = "; ".join([frames, *row["warnings"]])
        table.add_row(
            Text(row["where"]),
            Text(_short(row["output"])),
            Text(row["state"], COLOURS[row["state"]]),
            Text(clock(row["seconds"])),
            Text(row["reason"] or frames),
        )
    lines = [Text(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing to do", "bold")]
    lines.append(Text(f"in {clock(result.seconds)}; {_short(str(result.status))}"))
    return Group(*([table] if table.row_count else []), *lines)


def clock(seconds: float | None) -> str:
    """Return `0:01:05`; `4.2 s` below a minute; nothing for None."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else str(datetime.timedelta(seconds=round(seconds)))


def _short(path: str | None) -> str:
    """Return the path relative to the current folder where that is shorter."""
    if path is None:
        return "-"
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return path
    return min(relative, path, key=len) if not relative.startswith(os.pardir + os.sep + os.pardir) else str(Path(path))


def _table(*headers: str) -> "Table":
    from rich import box, get_console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    if get_console().width < NARROWEST:
        table.width = NARROWEST
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header in ("job", "state", "time"))
    return table


@contextlib.contextmanager
def _told_once() -> "Iterator[None]":
    """Suppress warnings of jobs that this process renders itself (--workers 0): they are in the results too, and are
    printed with the job's name."""

    def is_no_result(record: logging.LogRecord) -> bool:
        return not getattr(record, "in_result", False)

    handlers = [each for each in logging.getLogger("fommctl").handlers if isinstance(each, console.StderrHandler)]
    for handler in handlers:
        handler.addFilter(is_no_result)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_no_result)


@contextlib.contextmanager
def watching(session: Session, plan: "BatchPlan") -> "Iterator[Watcher]":
    """Show jobs on stderr: on a terminal a display that disappears at the end, otherwise a line when a job ends; with
    --quiet nothing."""
    progress = _Progress(len(plan.to_run))
    if session.shows_progress:
        from rich.live import Live

        live = Live(get_renderable=progress.picture, console=session.stderr, refresh_per_second=4, transient=True)
        with console.undisturbed(session.stderr), live:
            yield progress
    elif session.quiet:
        yield progress
    else:
        yield _Lines(len(plan.to_run), as_json=session.log_format == LogFormat.JSON)


@dataclass(slots=True)
class _Row:
    """A running job."""

    name: str
    began: float
    done: int = 0
    total: int | None = None


@dataclass(slots=True)
class _Progress:
    """State that is shown."""

    total: int
    running: dict[int, _Row] = field(default_factory=dict)
    latest: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=LATEST))
    """Name, state and what there is to say."""
    counts: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def started(self, job: "Job", attempt: int) -> None:
        self.running[job.number] = _Row(name_of(job), time.monotonic())

    def progress(self, job: "Job", done: int, total: int | None) -> None:
        row = self.running.get(job.number)
        if row is not None:
            row.done, row.total = done, total

    def failed_once(self, job: "Job", message: str) -> None:
        self.running.pop(job.number, None)
        self.latest.append((name_of(job), "failed", f"{message}; will be retried"))

    def ended(self, ended: "Ended") -> None:
        self.running.pop(ended.job.number, None)
        self.counts[ended.state] = self.counts.get(ended.state, 0) + 1
        self.latest.append((name_of(ended.job), ended.state, outcome_text(ended)))

    def picture(self) -> "RenderableType":
        """Return the jobs that ended last, those at work with a bar each, and how many are left."""
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

    def started(self, job: "Job", attempt: int) -> None:
        pass

    def progress(self, job: "Job", done: int, total: int | None) -> None:
        pass

    def failed_once(self, job: "Job", message: str) -> None:
        self._tell(f"{name_of(job)}: {message}; will be retried")

    def ended(self, ended: "Ended") -> None:
        self.done += 1
        self._tell(f"{self.done}/{self.total} {name_of(ended.job)}: {ended.state}, {outcome_text(ended)}".rstrip(", "))
        for warning in (ended.result or {}).get("warnings", ()):
            self._tell(f"{name_of(ended.job)}: {warning}", "warning")

    def _tell(self, message: str, level: str = "info") -> None:
        console.tell(message, as_json=self.as_json, logger=__name__, level=level)


def name_of(job: "Job") -> str:
    """Return the output's, with its folder where it is one of many pictures."""
    output = job.output
    return os.path.join(output.parent.name, output.name) if "%" in output.name else output.name


def outcome_text(ended: "Ended") -> str:
    """Return frames and time, or why it failed."""
    if ended.error is not None:
        return str(ended.error.get("message"))
    frames = (ended.result or {}).get("frames")
    warnings = len((ended.result or {}).get("warnings", ()))
    told = counted(warnings, "warning") if warnings else ""
    parts = [counted(frames, "frame") if frames is not None else "", clock(ended.seconds), told]
    return ", ".join(part for part in parts if part)
