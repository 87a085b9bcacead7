"""Batches of training pairs, step after step, made by worker processes.

Step s holds the same pairs whatever the number of workers and processes and wherever a run goes on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fommctl import signals
from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.train.pairs import Drawn, TrainingPairs

__all__ = ["TrainingPairs", "batches", "steps_per_epoch"]

_GRACE = 20
"""Seconds that workers go on after SIGTERM, so that the run, which got it too, can save and end them itself."""


def steps_per_epoch(pairs: TrainingPairs, batch_size: int) -> int:
    """Whole batches in an epoch. Raises UsageError where there is none."""
    steps = pairs.pairs_per_epoch // batch_size
    if steps == 0:
        raise UsageError(
            f"a batch of {batch_size} is larger than an epoch of {pairs.pairs_per_epoch} pairs",
            "Lower train_params.batch_size, or raise train_params.num_repeats.",
        )
    return steps


class _Reported(Dataset[Drawn | FommctlError]):
    """Pairs with what went wrong. The parent logs and raises it: torch would make one text of an error's traceback."""

    def __init__(self, pairs: TrainingPairs) -> None:
        self.pairs = pairs

    def __getitem__(self, draw: int) -> Drawn | FommctlError:
        try:
            return self.pairs.draw(draw)
        except FommctlError as error:
            return error


def batches(
    pairs: TrainingPairs,
    *,
    batch_size: int,
    first_step: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    steps: int | None = None,
) -> Generator[dict[str, Tensor], None, None]:
    """Stacked pairs, step after step.

    batch_size: over all processes; this one, number `rank` of `world`, gets its contiguous part. Step s holds the
    same pairs whatever `first_step` and the numbers of workers and processes; the rest of an epoch that fills no
    batch is left out, as published. steps: how many to give; None for no end.
    Workers start with the first step; close the generator, or let it run out, to end them. Raises UsageError at once,
    and InputError at the step at which no clip can be read any more.
    """
    if batch_size % world:
        raise UsageError(
            f"a batch of {batch_size} cannot be divided among {world} processes",
            f"Make train_params.batch_size a multiple of {world}.",
        )
    share = batch_size // world
    per_epoch = steps_per_epoch(pairs, batch_size)

    def numbers() -> Iterator[list[int]]:
        step = first_step
        while steps is None or step < first_step + steps:
            epoch, batch = divmod(step, per_epoch)
            start = epoch * pairs.pairs_per_epoch + batch * batch_size + rank * share
            yield list(range(start, start + share))
            step += 1

    loader: DataLoader[Any] = DataLoader(
        _Reported(pairs),
        batch_sampler=numbers(),
        num_workers=workers,
        collate_fn=_collated,
        worker_init_fn=_start_worker,
        # Forked workers need no pickled detectors and share the frames; elsewhere than on Linux forking is not safe.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # Its own: the loader must not draw from the generator of the run.
        generator=torch.Generator(),
    )
    return _run(loader, pairs)


def _run(loader: DataLoader[Any], pairs: TrainingPairs) -> Generator[dict[str, Tensor], None, None]:
    iterator: Any = iter(loader)
    try:
        for drawn in iterator:
            if isinstance(drawn, FommctlError):
                raise drawn
            batch, unreadable = drawn
            pairs.tell(unreadable)
            yield batch
    finally:
        # Not when the garbage is collected, but now; torch has no public name for it.
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Inside, a worker that the system ended is an InputError; torch raises its own wherever the run happens to be."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "a process that prepares training data was ended by the system",
            "It does so where memory runs out: lower --workers, and go on with --resume auto.",
        ) from error


def _collated(drawn: list[Drawn | FommctlError]) -> tuple[dict[str, Tensor], dict[str, str]] | FommctlError:
    items: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for one in drawn:
        if isinstance(one, FommctlError):
            return one
        items.append(one[0])
        unreadable.update(one[1])
    return default_collate(items), unreadable


def _start_worker(_: int) -> None:
    # The run decides when to end its workers.
    signals.leave_to_parent(lambda *_: signal.alarm(_GRACE))
