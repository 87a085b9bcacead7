"""Starting a run from the weights of another model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fommctl.api.protocols import Backend
from fommctl.errors import ModelError
from fommctl.models.loading import locate, read_model

if TYPE_CHECKING:
    from fommctl.host import Host


@dataclass(frozen=True, slots=True)
class Taken:
    """Tensors by their names, `group/name`."""

    taken: tuple[str, ...]
    left: tuple[str, ...]
    """Those of the run that the model has not, or in another shape: they start anew."""

    def __str__(self) -> str:
        start = f"{len(self.taken)} of {len(self.taken) + len(self.left)} tensors taken"
        return f"{start}; these start anew: {', '.join(self._left())}" if self.left else start

    def _left(self) -> list[str]:
        """By name; a network of which nothing was taken by its own."""
        found = {name.partition("/")[0] for name in self.taken}
        return list(
            dict.fromkeys(name if name.partition("/")[0] in found else name.partition("/")[0] for name in self.left)
        )


def initialise(backend: Backend, model: str, host: Host) -> Taken:
    """Copy every tensor of `model` (a name of the registry or a path) that fits by name and shape into the networks,
    statistics of BatchNorm included.

    Raises ModelError where no weight fits, and what reading a model raises.
    """
    given = read_model(locate(model, host), host).groups
    taken: list[str] = []
    left: list[str] = []
    fits = False
    for group, module in backend.modules().items():
        for name, tensor in module.state_dict().items():
            # The filter that reduces a picture belongs to the scale of the network, not to what it learned.
            if name.endswith("down.weight"):
                continue
            other = given.get(group, {}).get(name)
            if other is None or other.shape != tensor.shape:
                left.append(f"{group}/{name}")
                continue
            with torch.no_grad():
                tensor.copy_(other)
            taken.append(f"{group}/{name}")
            # Counters and biases fit networks of any width.
            fits |= tensor.dim() > 1
    if not fits:
        raise ModelError(
            f"no weight of {model} fits this preset",
            "Take a model of the same architecture, or the preset that it was trained with.",
        )
    return Taken(tuple(taken), tuple(left))
