"""Networks of a preset, built only where they are of a size that a machine can hold."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from fommctl.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fommctl.api.protocols import Backend
    from fommctl.api.specs import BackendSpec

MOST_VALUES = 400_000_000
"""Numbers in all networks of a model together, 1.6 GB; the largest published ones have a quarter of that."""


def build_backend(spec: BackendSpec, params: BaseModel) -> Backend:
    """The backend with fresh weights. Raises UsageError for networks of more than MOST_VALUES numbers, before they
    take memory: a preset that is wrong by a few digits, or hostile, describes terabytes."""
    with _Bounded(spec.name):
        backend: Backend = spec.build(params)
    return backend


class _Bounded(TorchFunctionMode):
    """Counts what `torch.empty`, which makes the weights of every layer, is asked for."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._values = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty:
            sides = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            self._values += prod(sides)
            if self._values > MOST_VALUES:
                raise UsageError(
                    f"the preset describes {self._backend} networks of more than {MOST_VALUES:,} values",
                    "Lower block_expansion, max_features or num_kp in its model_params.",
                )
        return func(*args, **(kwargs or {}))
