"""One optimisation step, the schedule, and the average of the weights."""

from __future__ import annotations

import bisect
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.api.training import PerceptualNetwork, TrainableBackend, TrainingBatch, TrainingView
from fommctl.presets.sections import BaseTrainParams

DEFAULT_CHECKPOINT_STEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on the number of a step; steps and epochs count from 0."""

    params: BaseTrainParams
    steps_per_epoch: int
    max_steps: int | None = None

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        steps = self.params.num_epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, step: int) -> int:
        """Return the epoch of a step."""
        return step // self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the preset's, in [0, 1]."""
        warmup = min(1.0, (step + 1) / self.params.warmup_steps) if self.params.warmup_steps else 1.0
        if self.params.schedule == "cosine":
            return warmup * 0.5 * (1 + math.cos(math.pi * step / self.total))
        passed = bisect.bisect_right(sorted(self.params.epoch_milestones), self.epoch(step))
        return warmup * float(0.1**passed)

    def saves_after(self, done: int) -> bool:
        """Return whether a checkpoint is due after `done` steps."""
        every = self.params.checkpoint_every_steps or min(self.steps_per_epoch, DEFAULT_CHECKPOINT_STEPS)
        return done % every == 0 or done == self.total or self.keeps_after(done)

    def keeps_after(self, done: int) -> bool:
        """Return whether the checkpoint after `done` steps is kept permanently."""
        return done % (self.params.checkpoint_freq * self.steps_per_epoch) == 0


class WeightAverage:
    """Averages of parameters and BatchNorm statistics; counters are copied.

    A run's own statistics follow its last ten batches or so, which differ in colour and light: with them, frames of an
    averaged model would be a few levels too dark or too bright.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self._live = modules
        self._decay = decay
        self.modules = {name: copy.deepcopy(module).requires_grad_(False) for name, module in modules.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after step `step` (from 0); early steps weigh more, to forget the start soon."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, module in self._live.items():
            torch._foreach_lerp_(list(self.modules[name].parameters()), list(module.parameters()), 1 - decay)
            for kept, buffer in zip(self.modules[name].buffers(), module.buffers(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(buffer, 1 - decay)
                else:
                    kept.copy_(buffer)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the averaged weights by group and name."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load the result of `state_dict`."""
        for name, module in self.modules.items():
            module.load_state_dict(dict(state[name]))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the networks during the block."""
        kept = {name: copy.deepcopy(module.state_dict()) for name, module in self._live.items()}
        for name, module in self._live.items():
            module.load_state_dict(self.modules[name].state_dict())
        try:
            yield
        finally:
            for name, module in self._live.items():
                module.load_state_dict(kept[name])


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step."""

    losses: Mapping[str, float]
    """Weighted losses before the step, by name."""
    gradient_norms: Mapping[str, float]
    """Gradient norms before clipping, by optimiser."""
    view: TrainingView | None


class TrainingStep:
    """A backend's networks with their losses and optimisers, on one device in one precision."""

    def __init__(
        self,
        backend: TrainableBackend,
        params: BaseTrainParams,
        device: torch.device,
        precision: str,
        *,
        perceptual: PerceptualNetwork | None = None,
        parallel: Callable[[nn.Module], nn.Module] = lambda module: module,
        mean: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        """precision: `fp32` or `bf16` (convolutions by autocast, geometry and losses in fp32).

        parallel: wraps the module of a phase so that processes exchange gradients.  mean: over the processes.
        """
        self._device = device
        self._autocast = precision == "bf16"
        self._limit = params.max_grad_norm
        self._mean = mean
        # A GPU convolves in bf16 fastest with channels last; a CPU with channels first (bf16 with channels last does
        # not finish a training step there).
        self._layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        for module in backend.modules().values():
            module.to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        if perceptual is not None:
            perceptual.to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self.phases = tuple(backend.training(params, perceptual))
        self._forwards = [parallel(phase.module.to(device).train()) for phase in self.phases]
        self.optimisers = {name: each for phase in self.phases for name, each in phase.optimisers.items()}
        self._rates = {name: [group["lr"] for group in each.param_groups] for name, each in self.optimisers.items()}

    def set_rate(self, factor: float) -> None:
        """Set the learning rates to the preset's times `factor`."""
        for name, optimiser in self.optimisers.items():
            for group, rate in zip(optimiser.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor

    @property
    def rate(self) -> float:
        """Learning rate of the first optimiser, as it was last set."""
        first: float = next(iter(self.optimisers.values())).param_groups[0]["lr"]
        return first

    def __call__(self, batch: TrainingBatch) -> StepResult:
        """Update the networks by one batch of this process."""
        losses: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        view: TrainingView | None = None
        generated = None
        for phase, forward in zip(self.phases, self._forwards, strict=True):
            # Other phases, such as the discriminator's, leave gradients in these networks.
            for optimiser in phase.optimisers.values():
                optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                result = forward(batch, generated)
            torch.stack([loss.float() for loss in result.losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
            for name, optimiser in phase.optimisers.items():
                norms[name] = self._limited(optimiser)
                optimiser.step()
            losses.update({name: loss.detach() for name, loss in result.losses.items()})
            generated, view = result.generated, view or result.view
        values = self._mean(torch.stack([loss.float() for loss in losses.values()])).tolist()
        return StepResult(
            dict(zip(losses, values, strict=True)), {name: float(norm) for name, norm in norms.items()}, view
        )

    def _limited(self, optimiser: torch.optim.Optimizer) -> Tensor:
        """Clip the gradients of an optimiser to the limit, and return their norm before that."""
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        limit = float("inf") if self._limit is None else self._limit
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        limit_groups(optimiser)
        return norm


def limit_groups(optimiser: torch.optim.Optimizer) -> None:
    """Clip the gradients of each group of parameters that has a `limit`; see `TrainingPhase`."""
    for group in optimiser.param_groups:
        if group.get("limit") is not None:
            torch.nn.utils.clip_grad_norm_(group["params"], group["limit"], norm_type=group.get("limit_norm", 2.0))
