"""How long a run is, and how its learning rates fall."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from fommctl.presets.sections import BaseTrainParams

DEFAULT_CHECKPOINT_STEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """Everything that follows from the number of a step; steps and epochs count from 0."""

    params: BaseTrainParams
    steps_per_epoch: int
    max_steps: int | None = None

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        steps = self.params.num_epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, step: int) -> int:
        """The epoch that step number `step` belongs to."""
        return step // self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Learning rate of a step as a share of the preset's, in [0, 1]."""
        warmup = min(1.0, (step + 1) / self.params.warmup_steps) if self.params.warmup_steps else 1.0
        if self.params.schedule == "cosine":
            return warmup * 0.5 * (1 + math.cos(math.pi * step / self.total))
        passed = bisect.bisect_right(sorted(self.params.epoch_milestones), self.epoch(step))
        return warmup * float(0.1**passed)

    def saves_after(self, done: int) -> bool:
        """Is a checkpoint due when `done` steps are done?"""
        every = self.params.checkpoint_every_steps or min(self.steps_per_epoch, DEFAULT_CHECKPOINT_STEPS)
        return done % every == 0 or done == self.total or self.keeps_after(done)

    def keeps_after(self, done: int) -> bool:
        """Is that checkpoint one that is kept for good?"""
        return done % (self.params.checkpoint_freq * self.steps_per_epoch) == 0
