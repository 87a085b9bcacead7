"""What a worker of a batch does: one job after another, with the models of the last ones still loaded."""

from __future__ import annotations

import importlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fommctl.batch.jobs import Job, ModelChoice
from fommctl.batch.stamps import Stamp, stamp_of
from fommctl.errors import FULL_DISK, FommctlError, out_of_memory
from fommctl.plugin import describe
from fommctl.workers import Tell, Work

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.animate.animator import Animator

log = logging.getLogger(__name__)
MODELS = 2
"""So many stay loaded in a worker: a batch that alternates between two loads each once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A job that was rendered."""

    result: Mapping[str, Any]
    """AnimateResult.to_json()."""
    seconds: float
    stamp: Stamp | None
    """Of the output as it was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A job that could not be rendered; nothing is left at its output."""

    message: str
    hint: str | None
    exit_code: int
    """As of `animate`."""
    seconds: float = 0.0
    fatal: bool = False
    """Then no other job can be rendered either: the disk is full."""


Outcome = Done | Failed


def prepare(device: str) -> Work[Job, Outcome]:
    """The function that does the jobs; it raises no errors.

    device: for jobs whose choice is `auto`.
    """
    # What takes long to import is no part of the first job's time.
    for module in ("fommctl.animate.run", "fommctl.animate.animator"):
        importlib.import_module(module)
    return Worker(device)


class Worker:
    """Holds the models of its last jobs, and their encoded sources."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._models: OrderedDict[ModelChoice, tuple[Animator, Tensor]] = OrderedDict()

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Render. tell(frames done, frames in all or None)."""
        began = time.monotonic()
        try:
            return self._render(job, tell, began)
        except Exception as error:
            log.debug("%s failed", job.where, exc_info=True)
            return failed(error, time.monotonic() - began)

    def _render(self, job: Job, tell: Tell, began: float) -> Done:
        import torch

        from fommctl.animate import run as animate

        animator, state = self.loaded(job.choice)
        # What is random comes out as in a run of this job alone.
        torch.set_rng_state(state)
        result = animate.run(job.config, animator, tell)
        return Done(result=result.to_json(), seconds=time.monotonic() - began, stamp=stamp_of(job.output))

    def loaded(self, choice: ModelChoice) -> tuple[Animator, Tensor]:
        """The model, and the state of the random numbers once it was loaded."""
        import torch

        from fommctl.animate.animator import load

        if choice.device == "auto":
            choice = replace(choice, device=self._device)
        if choice not in self._models:
            while len(self._models) >= MODELS:
                self._models.popitem(last=False)
            animator = load(
                choice.model,
                preset=choice.preset,
                device=choice.device,
                precision=choice.precision,
                seed=choice.seed,
                sets=choice.sets,
            )
            self._models[choice] = animator, torch.get_rng_state()
        self._models.move_to_end(choice)
        return self._models[choice]


def failed(error: Exception, seconds: float) -> Failed:
    """The word of an error."""
    error = out_of_memory(error) or error
    causes = (error, error.__cause__)
    full = any(isinstance(each, OSError) and each.errno in FULL_DISK for each in causes)
    if isinstance(error, FommctlError):
        return Failed(message=error.message, hint=error.hint, exit_code=error.exit_code, seconds=seconds, fatal=full)
    if isinstance(error, OSError):
        return Failed(
            message=(error.strerror or str(error)).lower(), hint=None, exit_code=3, seconds=seconds, fatal=full
        )
    return Failed(message=describe(error), hint=None, exit_code=1, seconds=seconds)
