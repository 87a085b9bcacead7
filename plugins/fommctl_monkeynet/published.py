"""The published layout: networks for videos, whose kernels (1, k, k) span one frame each. Ours are for pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.api import Groups

NETWORKS = ("generator", "kp_detector", "discriminator")
_MARK = "appearance_encoder."
"""What the names of tensors of no other model's generator begin with."""


def from_published(groups: Groups) -> Groups:
    """Kernels (O, I, 1, k, k) of a Monkey-Net's networks as (O, I, k, k); other models' tensors as they are."""
    return _changed(groups, lambda tensor: tensor[:, :, 0] if tensor.ndim == 5 and tensor.shape[2] == 1 else tensor)


def to_published(groups: Groups) -> Groups:
    """Kernels (O, I, k, k) of a Monkey-Net's networks as (O, I, 1, k, k)."""
    return _changed(groups, lambda tensor: tensor[:, :, None] if tensor.ndim == 4 else tensor)


def _changed(groups: Groups, change: Callable[[Tensor], Tensor]) -> Groups:
    if not any(name.startswith(_MARK) for name in groups.get("generator", {})):
        return groups
    return {
        group: {name: change(tensor) for name, tensor in tensors.items()} if group in NETWORKS else tensors
        for group, tensors in groups.items()
    }
