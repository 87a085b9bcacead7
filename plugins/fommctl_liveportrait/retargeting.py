"""Small networks that correct keypoints: stitching, eyes, lips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Corrector(nn.Module):
    """Linear layers, ReLU behind each but the last."""

    def __init__(self, *, input_size: int, hidden_sizes: Sequence[int], output_size: int) -> None:
        super().__init__()
        widths = [input_size, *hidden_sizes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        last = nn.Linear(widths[-1], output_size)
        # Without its weights, which a file may lack, it corrects nothing.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what is to be added to the keypoints, flat: (B, n); inputs: (B or 1, ...) each."""
        batch = max(map(len, inputs))
        out: Tensor = self.mlp(torch.cat([each.flatten(1).expand(batch, -1) for each in inputs], 1))
        return out


def stitched(stitching: Corrector, source: Tensor, driving: Tensor) -> Tensor:
    """Return keypoints (B, K, 3) moved so that the shoulders stay where the source (1, K, 3) has them."""
    change: Tensor = stitching(source, driving)
    points = driving.shape[1]
    out = driving + change[:, : 3 * points].reshape(driving.shape)
    out[..., :2] += change[:, 3 * points :, None].transpose(1, 2)
    return out
