"""The options of `batch`: one frozen configuration, checked as a whole before any work is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field

from fommctl.batch.status import FILE
from fommctl.errors import UsageError
from fommctl.options import Reads, configuration, listed, option

TIMELINES = (".otio", ".edl")
"""Suffixes of timelines, see `fommctl.batch.timelines`."""
RUN = "How jobs are run"
"""Panel of --help."""


def parse_split(text: str) -> int | None:
    """Parse a number of parts; `auto` gives None. Raises UsageError for anything else."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text[:9]) > 0):
        raise UsageError(f"--split cannot be '{text}'", "Give auto or a number from 1.")
    return int(text[:9])


@configuration
class BatchConfig:
    """Which jobs, and how they are run."""

    jobs: Annotated[Path, typer.Argument(help="Job file (.csv, .jsonl, .yaml, .json) or timeline (.otio, .edl).")]
    defaults: Mapping[str, Any] = Field(default_factory=dict)
    """Fields for jobs that lack them; relative paths in them are relative to the current folder."""
    workers: Annotated[
        int | None,
        Field(ge=0),
        option(RUN, "Worker processes, each with its own model. Default: one per device; 0: render in this process."),
    ] = None
    devices: Annotated[
        tuple[str, ...],
        Reads(listed("--devices")),
        option(RUN, "Devices, assigned to workers in turn, such as cuda:0,cuda:1. Default: all GPUs, else the CPU."),
    ] = ()
    engine: Annotated[
        Literal["local", "ray"],
        option(
            RUN,
            "local: processes on this machine. ray: the machines of a Ray cluster.",
            "--engine",
            metavar="<local|ray>",
        ),
    ] = "local"
    address: Annotated[
        str | None,
        option(
            RUN,
            "Address of a running Ray cluster: auto (the one of this machine) or HOST:PORT. Default: RAY_ADDRESS, else "
            "one is started here and stopped at the end.",
            "--address",
        ),
    ] = None
    split: Annotated[
        int | None,
        Reads(parse_split),
        option(
            RUN,
            "With Ray: render each driving video in this many parts in parallel. auto: only long ones, when no other "
            "job is waiting.",
            "--split",
            metavar="auto|N",
            show_default=False,
        ),
    ] = 1
    """Number of parts; None: as many as there are workers, where no other job waits."""
    handles: Annotated[
        int,
        Field(ge=0),
        option(RUN, "For timelines: extra frames before and after each clip, as far as its media goes."),
    ] = 0
    retry: Annotated[int, Field(ge=0), option(RUN, "How many times to retry a failed job, after a pause.")] = 0
    timeout: Annotated[
        float | None, Field(gt=0, lt=1e9), option(RUN, "Stop a job after this many seconds; it counts as failed.")
    ] = None
    keep_going: Annotated[
        bool | None,
        option(
            RUN,
            "Default: a failing job does not stop the others, but an invalid job in the file stops all before the "
            "first. --keep-going: skip invalid jobs too. --fail-fast: stop at the first failure.",
            "--keep-going/--fail-fast",
        ),
    ] = None
    dry_run: Annotated[
        bool, option(RUN, "Check all jobs, show which would run and why, and write nothing.", "--dry-run")
    ] = False
    status: Annotated[
        Path | None, option(RUN, "Status file of finished jobs. Default: status.jsonl next to JOBS.", "--status")
    ] = None
    root: Annotated[
        Path | None, option(RUN, "Refuse outputs outside this folder (after resolving links).", "--root")
    ] = None

    def conflicts(self) -> Iterator[UsageError]:
        """Yield an error for each set of options that exclude each other."""
        if self.engine == "local" and (self.address is not None or self.split != 1):
            yield UsageError("--address and --split need --engine ray", "Add --engine ray.")
        if self.engine == "ray" and self.workers == 0:
            yield UsageError("--engine ray needs workers", "Leave out --workers, or give a number from 1.")
        if self.handles and not self.is_timeline:
            yield UsageError("--handles is only for timelines", "Give a .otio or .edl file, or leave it out.")
        if self.timeout is not None and self.workers == 0:
            yield UsageError("--timeout needs workers that can be stopped", "Leave out --workers 0.")

    @property
    def is_timeline(self) -> bool:
        """Whether the jobs are clips of a timeline, by the file's suffix."""
        return self.jobs.suffix.lower() in TIMELINES

    @property
    def status_path(self) -> Path:
        """Absolute path of the status file."""
        return (self.status or self.jobs.parent / FILE).absolute()
