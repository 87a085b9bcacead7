"""What models render for clips: reconstructions and animations, as streams of parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fommctl.animate.engine import Engine
from fommctl.animate.motion import Choreography, Moment
from fommctl.animate.rendering import BATCH_ON_CPU
from fommctl.api.metrics import FrameChunk
from fommctl.api.protocols import Renderer, SourceContext
from fommctl.api.schema import TransferRules
from fommctl.errors import MissingError
from fommctl.evaluate.footage import Footage, groups
from fommctl.evaluate.predictions import CHUNK, Part, Stream
from fommctl.media.resampling import Pixels
from fommctl.networks.pixels import HostPixels, to_tensor
from fommctl.networks.transfer import Motion, adapted_covariances


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
    (`animate_params`, or what its backend has instead); its first frame is the reference of relative motion, as
    published."""
    renderer = engine.renderer()
    rules = transfer_rules(engine)

    def parts() -> Iterator[Part]:
        source = next(iter(source_clip))
        context = renderer.encode_source(to_tensor([source], renderer.device))
        choreography, first = None, 0
        for frames in groups(iter(driving), CHUNK):
            motion = _detected(renderer, frames)
            choreography = choreography or Choreography(
                context.motion,
                [motion[:1]],
                mode="relative" if rules.relative else "absolute",
                adapt_scale=rules.adapt_scale,
                smooth=False,
            )
            moved = _moved(choreography, motion, first, rules)
            yield Part(_chunk(_rendered(renderer, context, moved), None, first), source, np.stack(frames))
            first += len(frames)

    return Stream(parts(), float(driving.rate), driving.warnings)


def transfer_rules(engine: Engine) -> TransferRules:
    """How the model's preset transfers motion, as far as its backend can."""
    preset = engine.model.preset
    rules = preset.pairs().rules
    return (
        rules if "relative" in engine.host.find("backend", preset.backend).motions else replace(rules, relative=False)
    )


def _moved(choreography: Choreography, driving: Motion, first: int, rules: TransferRules) -> Motion:
    """The source's motion for driving frames of which the first is number `first` of its clip."""
    moved = choreography(driving, [Moment(float(first))] * len(driving))
    if rules.relative and not rules.relative_jacobian:
        moved = replace(moved, jacobians=driving.jacobians)
    shapes = [motion.covariances for motion in (driving, choreography.reference, choreography.source)]
    if rules.adapt_covariances and all(each is not None for each in shapes):
        moved = replace(moved, covariances=adapted_covariances(*shapes))  # type: ignore[arg-type]  # none is None
    if rules.inside:
        moved = replace(moved, keypoints=moved.keypoints.clamp(-1, 1))
    return moved


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
