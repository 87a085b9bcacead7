"""Whole passes as CUDA graphs. Written from the documentation of torch; not measured on a GPU yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Pass = Callable[..., Sequence[Tensor]]


def exact_convolutions() -> AbstractContextManager[None]:
    """cuDNN tries its algorithms out and keeps float32 as it is, where by default it would round it to TF32."""
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
    """Runs a pass as it is the first time that inputs of these shapes come, and as a recorded graph from then on.

    So the last, shorter batch of a clip costs no recording. What a pass allocates must be sized by shapes alone, and
    it must not wait for the device; everything else that it reads has to stay where it is: its owner keeps it there.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[object, ...]] = set()
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._works = True

    def __call__(self, name: str, function: Pass, owner: object, *inputs: Tensor) -> list[Tensor]:
        """`function(*inputs)`. name and owner: the pass, and the object whose tensors it reads beside its inputs."""
        key = (name, *(tuple(value.shape) for value in inputs))
        recording = self._recordings.get(key)
        if recording is None or recording.owner is not owner:
            if key not in self._seen or not self._works:
                self._seen.add(key)
                return list(function(*inputs))
            # The old graph's memory is free before the new one takes its own.
            self._recordings.pop(key, None)
            try:
                recording = self._recordings[key] = _record(function, owner, inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # A driver or build that cannot record still computes: without graphs, only slower.
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
