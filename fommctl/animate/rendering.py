"""The model's own loop: batches of driving frames in, rendered squares out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from fommctl.animate.compose import Rendered
from fommctl.animate.motion import Choreography, Moment
from fommctl.animate.timing import Cue
from fommctl.api.protocols import FlowRenderer, Renderer, SourceContext
from fommctl.errors import MissingError
from fommctl.networks.grids import HostPixels, to_tensor
from fommctl.networks.transfer import Motion

log = logging.getLogger(__name__)
BATCH_ON_CPU = 4
BATCH_ON_GPU = 32


def usual_batch_size(device: torch.device) -> int:
    """Frames at a time, where nobody says."""
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_ON_GPU


def batches(cues: Iterable[Cue], size: int) -> Iterator[list[Cue]]:
    """Lists of `size` cues; the last may be shorter."""
    batch: list[Cue] = []
    for cue in cues:
        batch.append(cue)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Rendering:
    """Renders batches in order; halves them where the device's memory does not suffice."""

    def __init__(
        self,
        renderer: Renderer,
        context: SourceContext,
        choreography: Choreography,
        moment: Callable[[Fraction], Moment],
        batch_size: int | None,
        *,
        with_flow: bool = False,
    ) -> None:
        """with_flow: for a source's detail; the renderer is a FlowRenderer then."""
        self.batch_size = batch_size or usual_batch_size(renderer.device)
        self.frames = 0
        self.seconds = 0.0
        """Spent in the model."""
        self._renderer = renderer
        self._context = context
        self._choreography = choreography
        self._moment = moment
        self._with_flow = with_flow

    def __call__(self, cues: Sequence[Cue]) -> Iterator[Rendered]:
        """The renderings of `cues`, in one batch or several."""
        position = 0
        while position < len(cues):
            # The size of a batch may shrink on the way.
            part = cues[position : position + self.batch_size]
            yield from self._rendered(part)
            position += len(part)

    def _rendered(self, cues: Sequence[Cue]) -> Iterator[Rendered]:
        began = time.perf_counter()
        device = self._renderer.device
        try:
            driving = self._renderer.detect(to_tensor([cue.frame.pixels for cue in cues], device))
        except torch.OutOfMemoryError:
            yield from self._halved(cues)
            return
        # What the choreography remembers must not see a frame twice: it runs once, whatever happens to the rendering.
        motion = self._choreography(driving, [self._moment(cue.frame.time) for cue in cues])
        step, position = len(cues), 0
        while position < len(cues):
            part = slice(position, position + step)
            try:
                frames, flow = self._frames(motion[part])
                pixels = HostPixels(frames)
            except torch.OutOfMemoryError:
                step = self._halve(step)
                continue
            self.frames += len(motion[part])
            self.seconds += time.perf_counter() - began
            yield Rendered(pixels, cues[part], driving[part], motion[part], frames, flow)
            began = time.perf_counter()
            position += step

    def _frames(self, motion: Motion) -> tuple[Tensor, Tensor | None]:
        if self._with_flow and isinstance(self._renderer, FlowRenderer):
            return self._renderer.render_with_flow(self._context, motion)
        return self._renderer.render(self._context, motion), None

    def _halved(self, cues: Sequence[Cue]) -> Iterator[Rendered]:
        self._halve(len(cues))
        yield from self(cues)

    def _halve(self, size: int) -> int:
        if size <= 1:
            raise MissingError(
                f"the memory of {self._renderer.device} does not suffice for one frame",
                "Use --device cpu, or a smaller --size.",
            )
        self.batch_size = size // 2
        if self._renderer.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory: going on with batches of %d", self.batch_size)
        return self.batch_size
