"""The worker of a batch: renders one job after another, and keeps the last models loaded."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fommctl.animate.config import ModelChoice
from fommctl.batch.jobs import Job
from fommctl.batch.status import output_fingerprint
from fommctl.files import FileFingerprint
from fommctl.workers import Progress, Work

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.animate.animator import Animator

MODELS = 2
"""Models that stay loaded in a worker: a batch that alternates between two loads each once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """Result of a rendered job."""

    result: Mapping[str, Any]
    """AnimateResult.to_json()."""
    fingerprint: FileFingerprint | None
    """Fingerprint of the output as it was written."""


def make_worker(device: str) -> Work[Job, Rendered]:
    """Return the function that renders jobs.  device: device for jobs with `auto`."""
    # Import slow modules now, so that they do not count for the first job's time.
    for module in ("fommctl.animate.run", "fommctl.animate.animator"):
        importlib.import_module(module)
    return Worker(device)


class Worker:
    """Renders jobs; keeps the models of the last ones, and their encoded sources."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._models: OrderedDict[ModelChoice, tuple[Animator, Tensor]] = OrderedDict()

    def __call__(self, job: Job, report: Progress) -> Rendered:
        """Render a job. report(frames done, frames in all or None). Raises what `animate` raises."""
        from fommctl.animate import run as animate

        result = animate.run(job.config, self.ready(job.choice), report)
        return Rendered(result=result.to_json(), fingerprint=output_fingerprint(job.output))

    def ready(self, choice: ModelChoice) -> Animator:
        """Return the loaded model, with torch's random state as after loading it, so that jobs are independent."""
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
        animator, state = self._models[choice]
        torch.set_rng_state(state)
        return animator
