"""`fommctl train --nproc N`: the same command in N processes, under torch's elastic launcher."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, NoReturn

import typer

from fommctl.errors import InterruptedRunError, JobsFailedError, UsageError
from fommctl.machine import usable_cores
from fommctl.train.process_environment import find_place

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

    from fommctl.cli.session import Session

log = logging.getLogger(__name__)

SHUTDOWN_S = 120
"""What processes have, after a signal, to end their step and to write a checkpoint."""
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def launch(arguments: Sequence[str], count: int, device: str, session: Session) -> NoReturn:
    """Run `fommctl ARGUMENTS` without its --nproc in `count` processes and exit with their code.

    The processes tell errors themselves. Raises UsageError (device, a launcher within a launcher), and JobsFailedError
    where one was killed.
    """
    _check(count, device)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="fommctl-"))
        stack.enter_context(_environment(count))
        stack.enter_context(_quiet_launcher())
        stack.enter_context(_stdout_of_children(session))
        # Without the current folder on the path of modules (-P): a file there may have the name of a package.
        # The launcher would replace ${local_rank}.
        command = ["-P", "-m", "fommctl", *(word.replace("$", "$$") for word in without_nproc(arguments))]
        try:
            elastic_launch(_config(count, logs), sys.executable)(*command)
        except SignalException:
            raise typer.Exit(InterruptedRunError.exit_code) from None
        except ChildFailedError as error:
            _failed(error.failures, count)
    raise typer.Exit


def without_nproc(arguments: Sequence[str]) -> list[str]:
    """The arguments but for `--nproc N` and `--nproc=N`."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--nproc":
            next(words)
        elif not word.startswith("--nproc="):
            kept.append(word)
    return kept


def _check(count: int, device: str) -> None:
    if find_place(os.environ) is not None:
        raise UsageError(
            "--nproc within torchrun or srun, which start processes themselves",
            "Leave --nproc away, or give srun one task for each machine with all its GPUs.",
        )
    if device == "cpu":
        return
    import torch

    present = torch.cuda.device_count()
    if device not in ("auto", "cuda"):
        raise UsageError(f"{count} processes cannot all compute on '{device}'", "Take --device cuda or cpu.")
    if present < count and (present or device == "cuda"):
        raise UsageError(
            f"--nproc {count}, and this machine has {present} GPUs",
            "Take as many processes as there are GPUs, or --device cpu.",
        )


def _config(count: int, logs: str) -> LaunchConfig:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    # What the caller ignores (nohup, a background job) stays ignored, where this torch lets one choose.
    heeded = [name for name in _SIGNALS if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    chosen = {"signals_to_handle": ",".join(heeded)}
    known = {field.name for field in fields(LaunchConfig)}
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        **{name: value for name, value in chosen.items() if name in known},  # type: ignore[arg-type]
    )


def _failed(failures: dict[int, ProcessFailure], count: int) -> NoReturn:
    """The first one to fail comes first; its error, or that it vanished, ended the others."""
    rank, failure = next(iter(failures.items()))
    if failure.exitcode > 0:
        raise typer.Exit(failure.exitcode)
    message = f"process {rank} of {count} was ended by {signal.Signals(-failure.exitcode).name}"
    if any(other.exitcode > 0 for other in failures.values()):
        log.warning("%s", message)
        raise typer.Exit(JobsFailedError.exit_code)
    raise JobsFailedError(
        message, "A machine without free memory does this. Go on with the same command and --resume auto."
    )


@contextmanager
def _environment(count: int) -> Iterator[None]:
    """What the processes inherit; settings of the caller stand."""
    wanted = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // count)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """The launcher's own messages are for -v: the processes tell what happened."""
    logger = logging.getLogger("torch.distributed")
    before = logger.propagate, list(logger.handlers)
    if not log.isEnabledFor(logging.INFO):
        logger.propagate = False
        logger.handlers[:] = [logging.NullHandler()]
    try:
        yield
    finally:
        logger.propagate, logger.handlers[:] = before


@contextmanager
def _stdout_of_children(session: Session) -> Iterator[None]:
    """Under --json, file descriptor 1 leads to stderr, which is not where the result of a child belongs."""
    try:
        number = session.stdout.fileno() if session.stdout is not None else 1
    except io.UnsupportedOperation:
        number = 1
    kept = os.dup(1)
    os.dup2(number, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
