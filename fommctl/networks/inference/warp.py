"""Bilinear sampling of features as a weighted sum of four rows of a table."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbours(
    grid: Tensor, height: int, width: int, *, align_corners: bool, gain: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which four of the height x width places each sampling point reads, and with what weight.

    grid: (B, H, W, 2) in [-1, 1], x before y.  gain: (B, 1, H, W), multiplied into the weights.
    Returns indices and weights (B H W, 4); places outside the picture have weight 0, as in zero padding.
    """
    size = _size(width, height, grid.device)
    position = (grid + 1) * ((size - 1) / 2) if align_corners else ((grid + 1) * size - 1) / 2
    # Points far outside (and NaN, where a Jacobian was singular) stay two pixels off the picture.
    position = position.nan_to_num(-2.0).clamp(-2.0, max(height, width) + 1.0).view(-1, 1, 2)
    corner = position.floor()
    fraction = position - corner
    places = torch.cat((corner, corner + 1), 1)
    weights = torch.cat((1 - fraction, fraction), 1) * ((places >= 0) & (places < size))
    places = torch.minimum(places.clamp_(min=0), size - 1).to(torch.int32)
    if gain is not None:
        weights[..., 1] *= gain.reshape(-1, 1)
    indices = places[:, :, None, 1] * width + places[:, None, :, 0]
    return indices.flatten(1), (weights[:, :, None, 1] * weights[:, None, :, 0]).flatten(1)


@cache
def _size(width: int, height: int, device: torch.device) -> Tensor:
    # Kept: while a CUDA graph is recorded nothing may come from the host.
    return torch.tensor((width, height), device=device, dtype=torch.float32)


def weighted_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Rows of table (N, C), by indices (M, 4), summed with weights (M, 4): (M, C)."""
    if table.device.type == "cpu":
        return F.embedding_bag(indices, table, per_sample_weights=weights.to(table.dtype), mode="sum")
    return (table[indices.long()] * weights.to(table.dtype)[..., None]).sum(1)
