"""Small networks that correct keypoints: stitching, eyes, lips (Guo et al. 2024, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Corrector(nn.Module):
    """Predicts offsets of keypoints by linear layers, with ReLU after each but the last."""

    def __init__(self, *, input_size: int, hidden_sizes: Sequence[int], output_size: int) -> None:
        super().__init__()
        widths = [input_size, *hidden_sizes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        last = nn.Linear(widths[-1], output_size)
        # Its weights are optional: without them, the offsets are zero.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the offsets of the keypoints, flattened to (B, n), for inputs (B or 1, ...) each."""
        batch = max(map(len, inputs))
        out: Tensor = self.mlp(torch.cat([each.flatten(1).expand(batch, -1) for each in inputs], 1))
        return out


def stitched(stitching: Corrector, source: Tensor, driving: Tensor) -> Tensor:
    """Move driving keypoints (B, K, 3) so that the shoulders stay where the source's keypoints (1, K, 3) have them."""
    change: Tensor = stitching(source, driving)
    points = driving.shape[1]
    out = driving + change[:, : 3 * points].reshape(driving.shape)
    out[..., :2] += change[:, 3 * points :, None].transpose(1, 2)
    return out
