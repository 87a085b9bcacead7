"""What models render for clips: reconstructions and animations, as streams of parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fommctl.api.metrics import FrameChunk
from fommctl.api.protocols import Renderer, SourceContext
from fommctl.core.pixels import HostPixels, to_tensor
from fommctl.core.transfer import Motion
from fommctl.errors import MissingError
from fommctl.media.resampling import Pixels
from fommctl.sections import AnimateParams, NormalizationParams
from fommctl.stages.choreography import Choreography
from fommctl.stages.engine import Engine
from fommctl.stages.evaluation.footage import Footage, groups
from fommctl.stages.evaluation.predictions import CHUNK, Part, Stream
from fommctl.stages.rendering import BATCH_ON_CPU


def reconstruction(engine: Engine, clip: Footage) -> Stream:
    """The first frame drives itself through the clip: absolute keypoints, every frame, the first one too, as published
    (first-order-model, reconstruction.py)."""
    renderer = engine.renderer()

    def parts() -> Iterator[Part]:
        context, source, first = None, None, 0
        for frames in groups(iter(clip), CHUNK):
            if context is None or source is None:
                source = frames[0]
                context = renderer.encode_source(to_tensor([source], renderer.device))
            motion = _detected(renderer, frames)
            truth = np.stack(frames)
            yield Part(_chunk(_rendered(renderer, context, motion), truth, first), source, truth)
            first += len(frames)

    return Stream(parts(), float(clip.rate), clip.warnings)


def animation(engine: Engine, source_clip: Footage, driving: Footage) -> Stream:
    """The first frame of one clip moves like another clip, by the transfer that the model's preset states
    (`animate_params.normalization_params`); its first frame is the reference of relative motion, as published."""
    renderer = engine.renderer()
    params = normalization(engine)
    relative = params.use_relative_movement

    def parts() -> Iterator[Part]:
        source = next(iter(source_clip))
        context = renderer.encode_source(to_tensor([source], renderer.device))
        choreography, first = None, 0
        for frames in groups(iter(driving), CHUNK):
            motion = _detected(renderer, frames)
            choreography = choreography or Choreography(
                context.motion,
                motion[:1],
                mode="relative" if relative else "absolute",
                adapt_scale=params.adapt_movement_scale,
                smooth=False,
            )
            moved = choreography(motion, [float(first)] * len(frames), [True] * len(frames))
            if relative and not params.use_relative_jacobian:
                moved = replace(moved, jacobians=motion.jacobians)
            yield Part(_chunk(_rendered(renderer, context, moved), None, first), source, np.stack(frames))
            first += len(frames)

    return Stream(parts(), float(driving.rate), driving.warnings)


def normalization(engine: Engine) -> NormalizationParams:
    """How the model's preset transfers motion, as far as its backend can."""
    section = engine.model.preset.sections.get("animate_params")
    params = section.normalization_params if isinstance(section, AnimateParams) else NormalizationParams()
    if "relative" not in engine.host.find("backend", engine.model.preset.backend).motions:
        return params.model_copy(update={"use_relative_movement": False})
    return params


def _detected(renderer: Renderer, frames: list[Pixels]) -> Motion:
    size = _batch(renderer)
    parts = [frames[start : start + size] for start in range(0, len(frames), size)]
    return Motion.cat([renderer.detect(to_tensor(part, renderer.device)) for part in parts])


def _rendered(renderer: Renderer, context: SourceContext, motion: Motion) -> tuple[Tensor, NDArray[np.uint8]]:
    """Rendered frames (N, 3, H, W) as they are, on the CPU, and rounded to 8 bits (N, H, W, 3)."""
    size = _batch(renderer)
    exact, rounded = [], []
    for start in range(0, len(motion), size):
        frames = _render(renderer, context, motion[start : start + size])
        rounded.append(HostPixels(frames).array())
        exact.append(frames.float().cpu())
    return torch.cat(exact), np.concatenate(rounded)


def _render(renderer: Renderer, context: SourceContext, motion: Motion) -> Tensor:
    try:
        return renderer.render(context, motion)
    except torch.OutOfMemoryError as error:
        if len(motion) == 1:
            raise MissingError(
                f"the memory of {renderer.device} does not suffice for one frame", "Use --device cpu."
            ) from error
    half = len(motion) // 2
    return torch.cat([_render(renderer, context, part) for part in (motion[:half], motion[half:])])


def _batch(renderer: Renderer) -> int:
    return BATCH_ON_CPU if renderer.device.type == "cpu" else CHUNK


def _chunk(rendered: tuple[Tensor, NDArray[np.uint8]], truth: NDArray[np.uint8] | None, first: int) -> FrameChunk:
    exact, prediction = rendered
    return FrameChunk(prediction, truth, exact.permute(0, 2, 3, 1).contiguous().numpy(), first)
