"""Which bf16 instructions the CPU has that torch's convolutions make use of. Read off, not timed: all processes of a
machine find the same, however busy it is."""

from __future__ import annotations

import os
from functools import cache
from typing import Literal, get_args

import torch

Instructions = Literal["tiles", "vectors", "none"]
"""`tiles`: matrix tiles (AMX), several times as fast as fp32. `vectors`: AVX-512 with bf16 products, up to twice as
fast. `none`: bf16 is computed by way of fp32 and slower, or nothing is known of it (ARM)."""
INSTRUCTIONS = get_args(Instructions)
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep oneDNN, which computes the convolutions, from instructions that the CPU has."""


@cache
def bf16_instructions() -> Instructions:
    """The best that CPU, build of torch and environment leave."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "none"
    limit = next((os.environ[name] for name in _LIMITS if os.environ.get(name)), "default").lower()
    allowed = _allowed(limit)
    # The flags alone do not do: the kernel grants a process the tiles, or does not.
    if allowed == "tiles" and torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx():
        return "tiles"
    return "vectors" if allowed != "none" and torch.cpu._is_avx512_bf16_supported() else "none"


def _allowed(limit: str) -> Instructions:
    """What oneDNN may use at most under this limit, such as `avx512_core_bf16`."""
    if limit in ("default", "all") or "amx" in limit or limit == "avx10_2":
        return "tiles"
    return "vectors" if limit.startswith(("avx512_core_bf16", "avx512_core_fp16", "avx10")) else "none"
