"""Renders clips with models, as streams: reconstructions, animations, and results of `animate` with its defaults."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig
from fommctl.animate.detecting import BATCH_ON_CPU, Batched
from fommctl.animate.engine import Engine, choose_motion
from fommctl.animate.plan import GENERAL
from fommctl.animate.transfer import Moment, MotionTransfer, rule_of
from fommctl.api.metrics import FrameChunk
from fommctl.api.protocols import ReconstructionRenderer, Renderer, SourceContext, TransferRenderer
from fommctl.api.schema import TransferRules
from fommctl.evaluate.streams import BATCH, ClipFrames, FrameBatch, FrameStream
from fommctl.media.images_out import write_png
from fommctl.media.resampling import Pixels
from fommctl.networks.grids import HostPixels, to_tensor
from fommctl.networks.motion import Motion, MotionParts
from fommctl.networks.transfer import adapted_covariances
from fommctl.threads import batches


def reconstruction(engine: Engine, clip: ClipFrames) -> FrameStream:
    """Reconstruct all frames of a clip from its first frame with absolute motion, as published (first-order-model,
    reconstruction.py); a `ReconstructionRenderer` also gets the frames."""
    renderer = engine.renderer()

    def rendered() -> Iterator[FrameBatch]:
        context, source, first = None, None, 0
        for frames in batches(clip, BATCH):
            if context is None or source is None:
                source = frames[0]
                context = renderer.encode_source(to_tensor([source], renderer.device))
            motion = _detected(renderer, frames)
            truth = np.stack(frames)
            result = _rendered(renderer, context, motion, source, frames)
            yield FrameBatch(_chunk(result, truth, first), source, truth)
            first += len(frames)

    return FrameStream(rendered(), float(clip.rate), clip.warnings)


def animation(engine: Engine, source_clip: ClipFrames, driving: ClipFrames, options: Sequence[str] = ()) -> FrameStream:
    """Animate the first frame of one clip with the motion of another.

    The transfer rules are those of the model's preset (`animate_params`, or the backend's own section); as published,
    the first driving frame is the reference of relative motion.
    options: `NAME=VALUE` texts for the model's family.
    """
    chosen = engine.options(options)
    renderer = engine.renderer(options=chosen)
    rules = transfer_rules(engine)
    mode = "relative" if rules.relative else "absolute"
    if isinstance(renderer, TransferRenderer):
        usual = engine.model.preset.pairs().defaults
        mode = choose_motion(engine.family, None if usual is None else usual.motion)

    def rendered() -> Iterator[FrameBatch]:
        source = next(iter(source_clip))
        context = renderer.encode_source(to_tensor([source], renderer.device))
        moves, first = None, 0
        for frames in batches(driving, BATCH):
            motion = _detected(renderer, frames)
            moves = moves or MotionTransfer(
                context.motion,
                [motion[:1]],
                mode=mode,
                adapt_scale=rules.adapt_scale,
                smooth=False,
                rule=rule_of(renderer, mode, chosen),
            )
            moved = _moved(moves, motion, first, rules)
            yield FrameBatch(_chunk(_rendered(renderer, context, moved, source), None, first), source, np.stack(frames))
            first += len(frames)

    return FrameStream(rendered(), float(driving.rate), driving.warnings)


def transfer_rules(engine: Engine) -> TransferRules:
    """Return the transfer rules of the model's preset, without relative motion if its backend has none."""
    preset = engine.model.preset
    rules = preset.pairs().rules
    supported = "relative" in engine.host.find("backend", preset.backend).motions
    return rules if supported else replace(rules, relative=False)


def _moved(moves: MotionTransfer, driving: MotionParts, first: int, rules: TransferRules) -> MotionParts:
    """Transfer the motion of driving frames to the source.  first: index of the first of these frames in its clip."""
    moved = moves(driving, [Moment(float(first))] * len(driving))
    if not isinstance(moved, Motion) or not isinstance(driving, Motion):
        return moved
    if rules.relative and not rules.relative_jacobian:
        moved = replace(moved, jacobians=driving.jacobians)
    shapes = [getattr(motion, "covariances", None) for motion in (driving, moves.reference, moves.source)]
    if rules.adapt_covariances and all(each is not None for each in shapes):
        moved = replace(moved, covariances=adapted_covariances(*shapes))  # type: ignore[arg-type]  # none is None
    if rules.inside:
        moved = replace(moved, keypoints=moved.keypoints.clamp(-1, 1))
    return moved


def _detected(renderer: Renderer, frames: list[Pixels]) -> MotionParts:
    parts = (to_tensor(part, renderer.device) for part in batches(frames, _batch(renderer)))
    detected: MotionParts = MotionParts.cat([renderer.detect(part) for part in parts])
    return detected


def _rendered(
    renderer: Renderer,
    context: SourceContext,
    motion: MotionParts,
    source: Pixels,
    driving: Sequence[Pixels] | None = None,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Render frames of the source's size: (N, 3, H, W) float32 in [0, 1] on the CPU, and (N, H, W, 3) uint8.

    driving: in a reconstruction, the frames to reconstruct.
    """

    def render(part: slice) -> tuple[Tensor, NDArray[np.uint8]]:
        if driving is not None and isinstance(renderer, ReconstructionRenderer):
            frames = renderer.reconstruct(context, motion[part], to_tensor(list(driving[part]), renderer.device))
        else:
            frames = renderer.render(context, motion[part])
        if frames.shape[2:] != source.shape[:2]:
            frames = F.interpolate(frames, source.shape[:2], mode="bilinear", antialias=True)
        return frames.float().cpu(), HostPixels(frames).array()

    found = Batched(_batch(renderer), renderer.device, hint="Use --device cpu.").in_batches(len(motion), render)
    exact, rounded = zip(*(made for _, made in found), strict=True)
    return torch.cat(exact), np.concatenate(rounded)


def _batch(renderer: Renderer) -> int:
    return BATCH_ON_CPU if renderer.device.type == "cpu" else BATCH


def _chunk(rendered: tuple[Tensor, NDArray[np.uint8]], truth: NDArray[np.uint8] | None, first: int) -> FrameChunk:
    exact, prediction = rendered
    return FrameChunk(prediction, truth, exact.permute(0, 2, 3, 1).contiguous().numpy(), first)


MOST_PIXELS = 2**24
"""Most pixels in a batch, as results are as large as their source pictures."""
RESULT = "result.mkv"
"""Name of the rendered file, which is lossless (FFV1)."""


def animate_defaults() -> dict[str, Any]:
    """Return the default options of `animate`, on which its results depend, as JSON values."""
    return {**AnimateConfig(source=Path("source"), driving=Path("driving")).to_json(), **GENERAL}


def animation_by_default(
    engine: Engine, source: Path, driving: Path, most: int | None, options: Sequence[str] = ()
) -> FrameStream:
    """Run `animate` with its default options, and stream its result with the driving video and the source picture.

    source: a picture, or a clip whose first frame is used.  most: number of driving frames; None for all.
    options: `NAME=VALUE` texts for the model's family.  Raises InputError, also while the stream is read.
    """
    film = ClipFrames(driving, limit=most)
    rate = Fraction(film.rate)
    warnings: list[str] = []

    def rendered() -> Iterator[FrameBatch]:
        picture = next(iter(ClipFrames(source, limit=1)))
        with tempfile.TemporaryDirectory(prefix="fommctl-evaluate-") as name:
            folder = Path(name)
            config = AnimateConfig(
                source=_readable(source, picture, folder / "source.png"),
                driving=_playable(film, folder / "driving"),
                output=folder / RESULT,
                end=None if most is None else most / rate,
                audio="none",
                options=tuple(options),
            )
            result = animate.run(config, engine)
            warnings.extend(result.warnings)
            driven = 1 if film.info is None else film.info.width * film.info.height
            pixels = max(result.width * result.height, picture.shape[0] * picture.shape[1], driven)
            size = max(1, min(BATCH, MOST_PIXELS // pixels))
            yield from _side_by_side(ClipFrames(result.output), film, picture, size, warnings)
        warnings.extend(film.warnings)

    return FrameStream(rendered(), float(rate), warnings)


def _side_by_side(
    result: ClipFrames, film: ClipFrames, picture: Pixels, size: int, warnings: list[str]
) -> Iterator[FrameBatch]:
    """Yield batches of `size` frames of the result with the driving frames, until one of them ends."""
    first = 0
    nothing: list[Pixels] = []
    for ours, theirs in zip_longest(batches(result, size), batches(film, size), fillvalue=nothing):
        common = min(len(ours), len(theirs))
        if common:
            yield FrameBatch(FrameChunk(np.stack(ours[:common]), None, None, first), picture, np.stack(theirs[:common]))
        first += common
        if len(ours) != len(theirs):
            which = "result" if len(ours) > len(theirs) else "driving clip"
            warnings.append(f"the {which} has more frames than the other; the first {first} were compared")
            return


def _readable(source: Path, picture: Pixels, target: Path) -> Path:
    """Return the source if `animate` reads its first frame, else a file with that frame."""
    if source.is_file() and not ClipFrames(source).strip:
        return source
    write_png(target, picture)
    return target


def _playable(film: ClipFrames, folder: Path) -> Path:
    """Return the driving clip, or for a strip, which `animate` reads as one picture, a folder with its frames."""
    if not film.strip:
        return film.path
    folder.mkdir()
    for number, pixels in enumerate(film):
        write_png(folder / f"{number:07d}.png", pixels)
    return folder
