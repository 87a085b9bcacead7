"""What this CPU does fast: measured, because flags do not tell. Some CPUs and builds compute bf16 by way of fp32."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F


@cache
def bf16_speedup() -> float:
    """How many times faster a convolution like those of the bottleneck is in bf16 than in fp32 on this CPU.

    About 8 with matrix tiles (AMX), 2 with bf16 vectors alone, below 1 without either. Takes 50 ms, once a process.
    """
    runs = {dtype: _run(dtype) for dtype in (torch.float32, torch.bfloat16)}
    shortest = dict.fromkeys(runs, float("inf"))
    with torch.inference_mode():
        for _ in range(5):
            for dtype, (x, weight) in runs.items():
                start = time.perf_counter()
                F.conv2d(x, weight, padding=1)
                shortest[dtype] = min(shortest[dtype], time.perf_counter() - start)
    return shortest[torch.float32] / shortest[torch.bfloat16]


def _run(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and weight of a 3x3 convolution of 256 channels on 32x32 places."""
    x, weight = torch.zeros(1, 256, 32, 32, dtype=dtype), torch.zeros(256, 256, 3, 3, dtype=dtype)
    return x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last)
