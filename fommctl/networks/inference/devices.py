"""Differences between devices: kernels, precisions, CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from fommctl.errors import MissingError, UsageError
from fommctl.networks.inference.convolutions import Instructions

log = logging.getLogger(__name__)
Pass = Callable[..., Sequence[Tensor]]


def exact_convolutions() -> AbstractContextManager[None]:
    """Let cuDNN benchmark its algorithms, and compute float32 without rounding to TF32, the default."""
    manager: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=False, allow_tf32=False
    )
    return manager


@dataclass(frozen=True, slots=True)
class _Recording:
    owner: object
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]


class Graphs:
    """Runs a pass eagerly for the first inputs of given shapes, and as a recorded CUDA graph from then on.

    So nothing is recorded for the last, shorter batch of a clip, or for a source that is rendered once, such as a frame
    of a video. A pass may only allocate memory that depends on shapes, and must not wait for the device. Tensors that
    it reads besides its inputs must stay in place, which their owner ensures.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[object, ...]] = set()
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._works = True

    def __call__(self, name: str, function: Pass, owner: object, *inputs: Tensor) -> list[Tensor]:
        """Call `function(*inputs)`.  name: name of the pass.  owner: the object whose tensors it reads besides its
        inputs."""
        key = (name, *(tuple(value.shape) for value in inputs))
        recording = self._recordings.get(key)
        if recording is None or recording.owner is not owner:
            # The old graph's memory is free before the new one takes its own.
            self._recordings.pop(key, None)
            if (*key, id(owner)) not in self._seen or not self._works:
                self._seen.add((*key, id(owner)))
                return list(function(*inputs))
            try:
                recording = self._recordings[key] = _record(function, owner, inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # A driver or build that cannot record graphs still computes, only slower.
                log.info("CUDA graphs are not used: %s", error)
                self._works = False
                return list(function(*inputs))
        for place, value in zip(recording.inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        recording.graph.replay()
        # The next replay overwrites the graph's own results.
        return [output.clone() for output in recording.outputs]


def _record(function: Pass, owner: object, inputs: Sequence[Tensor]) -> _Recording:
    places = [value.clone() for value in inputs]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function(*places)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = list(function(*places))
    return _Recording(owner, graph, places, outputs)


PRECISIONS = ("fp32", "bf16", "fp16")
WIDE = 96
"""Channels of a model's widest convolution from which bf16 vectors pay: 1.5 times as fast as fp32 for faces-mini (128)
and vox-256 (1024), 1.1 to 1.2 times for the presets of 64 pixels (32 to 80), which stay exact instead."""


@dataclass(frozen=True, slots=True)
class CpuPrecisions:
    """Precisions chosen by `auto` on a CPU."""

    wide: str
    """Precision of models whose widest convolution has WIDE channels or more."""
    narrow: str
    """Precision of other models."""
    training: str

    def for_channels(self, channels: int) -> str:
        """Return the precision for a model whose widest convolution has this number of channels."""
        return self.wide if channels >= WIDE else self.narrow


def cpu_precisions(instructions: Instructions) -> CpuPrecisions:
    """Return the precisions for a CPU with these instructions for bf16.

    Training steps in bf16 take 0.45 of the time of fp32 with tiles, and 2 to 4 times as long with vectors alone.
    """
    if instructions == "tiles":
        return CpuPrecisions("bf16", "bf16", "bf16")
    return CpuPrecisions("bf16" if instructions == "vectors" else "fp32", "fp32", "fp32")


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` is the first GPU, else the CPU.

    Raises UsageError for any other name and MissingError where that device is absent.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"unknown device '{name}'", "Use auto, cpu, cuda, cuda:N or mps.")
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise MissingError("this machine or this torch has no mps device", "Use --device cpu.")
        return torch.device("mps")
    if not torch.cuda.is_available():
        hint = "Use --device cpu, or install a torch with CUDA." if torch.version.cuda is None else "Use --device cpu."
        raise MissingError("no CUDA device is available", hint)
    number, count = int(index or 0), torch.cuda.device_count()
    if number >= count:
        raise MissingError(f"there is no device cuda:{number}", f"The last one is cuda:{count - 1}.")
    return torch.device("cuda", number)


def resolve_precision(name: str, device: torch.device, *, on_cpu: str = "fp32") -> str:
    """Return `fp32`, `bf16` or `fp16`; `auto` is the fastest one that keeps frames within 40 dB of fp32 on this device.

    on_cpu: the result for `auto` on a CPU. Raises UsageError for an unknown name and for one that the device does not
    support.
    """
    if name == "auto":
        return on_cpu if device.type == "cpu" else _on_gpu(device)
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision '{name}'", f"Use auto, {', '.join(PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is not supported on a CPU", "Use auto, fp32 or bf16.")
    return name


def resolve_training_precision(name: str, device: torch.device, *, on_cpu: str = "fp32") -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 where it is known to be faster.

    on_cpu: the result for `auto` on a CPU. Raises UsageError for any other name: fp16 would need loss scaling.
    """
    if name == "fp16":
        raise UsageError("training does not support fp16", "Use auto, fp32 or bf16.")
    return "bf16" if resolve_precision(name, device, on_cpu=on_cpu) == "bf16" else "fp32"


def _on_gpu(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"
