"""Reads `model_params` off the tensors of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fommctl.api import Architecture, Groups


def read_architecture(groups: Groups) -> Architecture | None:
    """None: not read yet."""
    return None
