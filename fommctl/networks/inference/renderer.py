"""What the fast renderers of all models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fommctl.networks.inference.cuda import Graphs, exact_convolutions
from fommctl.networks.transfer import Motion

Context = TypeVar("Context")


class GraphedRenderer(ABC, Generic[Context]):
    """A renderer (see `fommctl.api.Renderer`) whose passes become CUDA graphs on a GPU, with convolutions in the type
    that was asked for, not rounded to TF32.

    Its buffers serve one call at a time: not for several threads at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs = Graphs() if device.type == "cuda" else None
        self._parts: tuple[bool, ...] = ()

    @abstractmethod
    def _detect(self, frames: Tensor) -> Motion: ...

    @abstractmethod
    def _encode(self, frame: Tensor) -> Context: ...

    @abstractmethod
    def _render(self, context: Context, motion: Motion) -> Tensor: ...

    def _render_with_flow(self, context: Context, motion: Motion) -> tuple[Tensor, Tensor | None]:
        """Frames and flow as `fommctl.api.FlowRenderer` has them."""
        return self._render(context, motion), None

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        if self._graphs is None:
            return self._detect(frames)
        with exact_convolutions():
            found = self._graphs("detect", self._detected, self, frames)
        return _motion(found, self._parts)

    @torch.inference_mode()
    def encode_source(self, frame: Tensor) -> Context:
        """See `fommctl.api.Renderer`."""
        with nullcontext() if self._graphs is None else exact_convolutions():
            return self._encode(frame)

    @torch.inference_mode()
    def render(self, context: Any, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`; context: from `encode_source` of this renderer."""
        if self._graphs is None:
            return self._render(context, motion)
        there = tuple(part is not None for part in motion.parts())
        given = [part for part in motion.parts() if part is not None]
        with exact_convolutions():
            return self._graphs(
                "render", lambda *values: (self._render(context, _motion(values, there)),), context, *given
            )[0]

    @torch.inference_mode()
    def render_with_flow(self, context: Any, motion: Motion) -> tuple[Tensor, Tensor | None]:
        """See `fommctl.api.FlowRenderer`; context: from `encode_source` of this renderer."""
        if self._graphs is None:
            return self._render_with_flow(context, motion)
        there = tuple(part is not None for part in motion.parts())
        given = [part for part in motion.parts() if part is not None]

        def rendered(*values: Tensor) -> tuple[Tensor, ...]:
            frames, flow = self._render_with_flow(context, _motion(values, there))
            return (frames,) if flow is None else (frames, flow)

        with exact_convolutions():
            frames, *flow = self._graphs("render with flow", rendered, context, *given)
        return frames, flow[0] if flow else None

    def _detected(self, frames: Tensor) -> tuple[Tensor, ...]:
        motion = self._detect(frames)
        self._parts = tuple(part is not None for part in motion.parts())
        return tuple(part for part in motion.parts() if part is not None)


def _motion(tensors: Sequence[Tensor], there: Sequence[bool]) -> Motion:
    """The motion whose parts are these tensors; there: which parts it has."""
    left = iter(tensors)
    keypoints, *others = (next(left) if present else None for present in there)
    assert keypoints is not None
    return Motion(keypoints, *others)
