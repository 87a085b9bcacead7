"""Which device and which precision `auto` stands for."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F

from fommctl.errors import MissingError, UsageError

PRECISIONS = ("fp32", "bf16", "fp16")


def resolve_device(name: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` is the first GPU, else the CPU.

    Raises UsageError for any other name and MissingError where that device is absent.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"unknown device '{name}'", "Take auto, cpu, cuda, cuda:N or mps.")
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise MissingError("this machine or this torch has no mps device", "Take --device cpu.")
        return torch.device("mps")
    if not torch.cuda.is_available():
        hint = (
            "Take --device cpu, or install a torch with CUDA." if torch.version.cuda is None else "Take --device cpu."
        )
        raise MissingError("no CUDA device is available", hint)
    number, count = int(index or 0), torch.cuda.device_count()
    if number >= count:
        raise MissingError(f"there is no device cuda:{number}", f"The last one is cuda:{count - 1}.")
    return torch.device("cuda", number)


def resolve_precision(name: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is the fastest one that keeps the frames within 40 dB of fp32 on this device.

    Raises UsageError for an unknown name and for one that the device does not compute in.
    """
    if name == "auto":
        return _fastest(device)
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision '{name}'", f"Take auto, {', '.join(PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 does not run on a CPU", "Take auto, fp32 or bf16.")
    return name


def _fastest(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and bf16_is_fast() else "fp32"


@cache
def bf16_is_fast() -> bool:
    """Whether a convolution like those of the bottleneck takes well under the time of fp32 in bf16 on this CPU.

    It is timed (some 50 ms) because flags do not tell: some CPUs and builds compute bf16 by way of fp32.
    """
    return _milliseconds(torch.bfloat16) < 0.75 * _milliseconds(torch.float32)


def _milliseconds(dtype: torch.dtype) -> float:
    """Shortest of a few runs of a 3x3 convolution of 256 channels on 32x32 places."""
    x = torch.zeros(1, 256, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.zeros(256, 256, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            times.append(time.perf_counter() - start)
    return 1000 * min(times)
