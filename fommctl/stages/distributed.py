"""The processes that train together; one, where nothing was launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """The one that writes files and talks to people."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """A module that exchanges gradients with those of the other processes."""
        return module

    def synchronise_statistics(self, modules: Mapping[str, nn.Module]) -> None:
        """Let BatchNorm of these networks see the whole batch, in place."""

    def mean(self, values: Tensor) -> Tensor:
        """Over the processes, elementwise."""
        return values

    def any(self, flag: bool) -> bool:
        """Is it true in one of them? All get the same answer."""
        return flag
