"""Which device and which precision `auto` stands for."""

from __future__ import annotations

import torch

from fommctl.core.fast.probe import bf16_speedup
from fommctl.errors import MissingError, UsageError

PRECISIONS = ("fp32", "bf16", "fp16")
WORTHWHILE = 1.5
"""How much faster bf16 convolutions have to be on a CPU before `auto` gives up exactness."""


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


def resolve_training_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 where it is fast on this device.

    Raises UsageError for any other name: fp16 would need its losses scaled.
    """
    if name == "fp16":
        raise UsageError("training does not compute in fp16", "Take auto, fp32 or bf16.")
    return "bf16" if resolve_precision(name, device) == "bf16" else "fp32"


def _fastest(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and bf16_speedup() >= WORTHWHILE else "fp32"
