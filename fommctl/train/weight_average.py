"""The exponential moving average of the weights of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of parameters and of the statistics of BatchNorm; counters are copied.

    The statistics of a run follow its last ten batches or so, which differ in colour and light: with them, frames of an
    averaged model come out a few levels too dark or too bright.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self._live = modules
        self._decay = decay
        self.modules = {name: copy.deepcopy(module).requires_grad_(False) for name, module in modules.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step` (from 0): the first steps count for more, so that the start is soon forgotten."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, module in self._live.items():
            torch._foreach_lerp_(list(self.modules[name].parameters()), list(module.parameters()), 1 - decay)
            for kept, buffer in zip(self.modules[name].buffers(), module.buffers(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(buffer, 1 - decay)
                else:
                    kept.copy_(buffer)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """By group and name."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """What `state_dict` gave."""
        for name, module in self.modules.items():
            module.load_state_dict(dict(state[name]))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the live networks hold the averaged weights."""
        kept = {name: copy.deepcopy(module.state_dict()) for name, module in self._live.items()}
        for name, module in self._live.items():
            module.load_state_dict(self.modules[name].state_dict())
        try:
            yield
        finally:
            for name, module in self._live.items():
                module.load_state_dict(kept[name])
