"""One optimisation step: the phases of a backend in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.api.training import PerceptualNetwork, TrainableBackend, TrainingBatch, TrainingView
from fommctl.presets.sections import BaseTrainParams


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did."""

    losses: Mapping[str, float]
    """Weighted, before the step."""
    gradient_norms: Mapping[str, float]
    """By optimiser, before clipping."""
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
        """Learning rates as a share of those of the preset."""
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
            # Other phases leave gradients in these networks (of the discriminator, for one).
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
        """The norm of all gradients of an optimiser, which are scaled down to the limit."""
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        limit = float("inf") if self._limit is None else self._limit
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
