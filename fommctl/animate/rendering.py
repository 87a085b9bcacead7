"""From driving frames to rendered squares: read, detect, transfer, render; any range equals the same frames of the
whole, because batches begin where those of the whole do."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fommctl import __version__
from fommctl.animate.compose import Composer, CompositionOptions, Pasted, Planes, Rendered, Write
from fommctl.animate.config import FrameRange, parse_frames
from fommctl.animate.detecting import (
    DrivingMotion,
    MotionDetector,
    batches,
    halved,
    usual_batch_size,
    with_landmarks,
)
from fommctl.animate.engine import Engine
from fommctl.animate.faces import FaceBlend
from fommctl.animate.film import SourceFilm, SourceFrame
from fommctl.animate.motion import DrivingFrame, Motion, TimedFrame
from fommctl.animate.plan import AnimationPlan, keeps_alpha, openings_of, result_space
from fommctl.animate.plates import PlateComposer, associated, plate_of
from fommctl.animate.reference import ReferenceFinder
from fommctl.animate.transfer import MotionTransfer, rule_of
from fommctl.api.protocols import FlowRenderer, Renderer, SourceContext
from fommctl.api.specs import StageEvent
from fommctl.errors import MissingError, UsageError
from fommctl.media import timecode
from fommctl.media.colour import ColourTags
from fommctl.media.colourspaces import Space, tags_of
from fommctl.media.containers import is_plate_format
from fommctl.media.marking import Mark
from fommctl.media.plates import Attributes
from fommctl.media.plates_out import PlateFormat
from fommctl.media.reader import Clip
from fommctl.networks.grids import HostPixels
from fommctl.networks.motion import MotionParts
from fommctl.provenance.hashing import model_identity
from fommctl.provenance.signing import Signature

Group = list[TimedFrame[DrivingFrame]]
"""Driving frames that are rendered together."""


class SquareRenderer:
    """Renders the squares of a source batch by batch; halves batches that are too large for the device's memory."""

    def __init__(
        self, renderer: Renderer, context: SourceContext, batch_size: int | None, *, with_flow: bool = False
    ) -> None:
        """with_flow: for a source's detail; the renderer is a FlowRenderer then."""
        self.batch_size = batch_size or usual_batch_size(renderer.device)
        self.seconds = 0.0
        """Seconds spent in the model."""
        self._renderer = renderer
        self._context = context
        self._with_flow = with_flow

    def __call__(
        self, motion: MotionParts, context: SourceContext | None = None
    ) -> Iterator[tuple[slice, HostPixels, Tensor, Tensor | None]]:
        """Yield which rows of the motion were rendered, their pixels, the same before they were rounded, and their
        flow.  context: of another source than that of this object."""
        context = context or self._context
        step, position = self.batch_size, 0
        while position < len(motion):
            part = slice(position, position + step)
            began = time.perf_counter()
            try:
                frames, flow = self._render(context, motion[part])
                pixels = HostPixels(frames)
            except torch.OutOfMemoryError:
                step = self.batch_size = halved(min(step, len(motion) - position), self._renderer.device)
                continue
            self.seconds += time.perf_counter() - began
            yield part, pixels, frames, flow
            position += step

    def _render(self, context: SourceContext, motion: MotionParts) -> tuple[Tensor, Tensor | None]:
        if self._with_flow and isinstance(self._renderer, FlowRenderer):
            return self._renderer.render_with_flow(context, motion)
        return self._renderer.render(context, motion), None


@dataclass(slots=True)
class RenderSession:
    """The plan of one face on an engine, ready to render."""

    plan: AnimationPlan
    engine: Engine
    renderer: Renderer
    composer: Composer | PlateComposer
    signature: Signature | None
    """The signature of the result, where one is wanted."""
    detector: MotionDetector
    squares: SquareRenderer
    finder: ReferenceFinder
    moves: MotionTransfer
    references: dict[int, MotionParts]
    film: SourceFilm | None
    """The source where all of its frames are animated."""
    composed: Callable[[SourceFrame], Composer]
    """Returns what finishes the frames of a frame of it."""
    rendered: int = 0
    """Frames; those that are shown twice count once."""
    seconds: float = 0.0
    """Spent in the transfer."""
    warnings: list[str] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """Frames at a time, after what the memory allowed for."""
        return min(self.squares.batch_size, self.detector.batch_size)

    @property
    def model_seconds(self) -> float:
        """Spent in the model."""
        return self.seconds + self.detector.seconds + self.squares.seconds

    def groups(self, detected: Iterable[DrivingFrame], frames: FrameRange) -> Iterator[Group]:
        """Yield what is rendered together, as in the whole; those before the range too, for their motion is
        remembered."""
        last = 0
        for batch in batches(self.plan.timed(self._with_references(detected)), self.detector.usual):
            yield batch
            last = batch[-1].frame.number
            if frames.ends_before(last + 1):
                return
        check_range(frames, last)
        if frames.ends_before(last + 1) or frames.last is None or self.plan.config.fps:
            return
        self.warnings.append(f"--frames {frames}: the last driving frame is number {last}")

    def render(self, group: Group, frames: FrameRange) -> Iterator[Rendered]:
        """Yield the frames of a group that are in the range, in one batch or several; moves on the state of the
        transfer."""
        began = time.perf_counter()
        rows = [timed.frame.motion for timed in group if timed.frame.motion is not None]
        driving = MotionParts.cat(rows)
        moments = []
        for timed in group:
            shot = self.plan.inputs.driving.number_at(timed.frame.time)
            moments.append(self.plan.moment(timed.frame, shot, self.finder.found[shot].time))
        # What the transfer remembers must not see a frame twice: it runs once, whatever happens to the rendering.
        reduced = len(self.moves.limited)
        wanted = [timed.frame.number in frames for timed in group]
        sources = None
        if self.film is not None and any(wanted):
            sources = self.film.at([timed.frame.time for timed in group])
        own = None if sources is None else MotionParts.cat([source.motion for source in sources])
        motion = self.moves(driving, moments, own)
        if not any(wanted):
            del self.moves.limited[reduced:]
        self.seconds += time.perf_counter() - began
        if sources is not None:
            yield from self._in_step(group, wanted, sources, driving, motion)
            return
        for part, pixels, exact, flow in self.squares(motion if any(wanted) else motion[:0]):
            self.rendered += sum(wanted[part])
            if any(wanted[part]):
                shown = [timed if asked else None for timed, asked in zip(group[part], wanted[part], strict=True)]
                yield Rendered(pixels, shown, driving[part], motion[part], exact, flow)

    def _in_step(
        self,
        group: Group,
        wanted: Sequence[bool],
        sources: Sequence[SourceFrame],
        driving: MotionParts,
        motion: MotionParts,
    ) -> Iterator[Rendered]:
        """Yield the frames of a group, each of its own frame of the source; those of one are rendered together."""
        for source, numbers in itertools.groupby(range(len(group)), key=lambda number: sources[number]):
            rows = [number for number in numbers if wanted[number]]
            if not rows:
                continue
            part = slice(rows[0], rows[-1] + 1)
            shown = [
                timed if source.present else replace(timed, frame=replace(timed.frame, present=False))
                for timed in group[part]
            ]
            composed = partial(self.composed, source)
            for some, pixels, exact, flow in self.squares(motion[part], source.context):
                self.rendered += len(shown[some])
                yield Rendered(pixels, shown[some], driving[part][some], motion[part][some], exact, flow, composed)

    def writing(self) -> dict[str, Any]:
        """Return what `Writer` is told of the result beside its path and its sound."""
        plan, model = self.plan, self.engine.model
        config, info = plan.config, plan.info
        width, height = self.composer.canvas
        return {
            "width": width,
            "height": height,
            "rate": plan.rate,
            "alpha": self.composer.alpha,
            "deep": plan.deep,
            "reel": self.reel,
            # At a rate of its own, moments are multiples of its period.
            "time_base": Fraction(1, plan.rate.numerator) if plan.pace or info.tick is None else info.tick,
            "colour": self._colour,
            "codec": config.codec,
            "crf": config.crf,
            "pix_fmt": config.pix_fmt or (self.composer.pix_fmt if isinstance(self.composer, PlateComposer) else None),
            "mark": Mark(__version__, model.name, model.preset.name),
            "overwrite": config.overwrite,
            "threads": config.encoder_threads,
            "complete": self.signature,
        }

    @property
    def _colour(self) -> ColourTags | None:
        """Tags of the result: those of its space, else the driving video's."""
        plan, info = self.plan, self.plan.info
        if plan.deep and (tags := tags_of(result_space(plan.config, plate_of(plan.inputs)))) is not None:
            return tags
        # Frames of HDR and wide-gamut clips arrive as bt709: their own tags would be wrong.
        return None if info.hdr or info.colour.wide_gamut else info.colour

    @property
    def reel(self) -> str | None:
        """The reel of the source, else of the driving video, else the one that was named."""
        plate, plan = self.plan.inputs.picture.plate, self.plan
        return (None if plate is None else plate.attributes.reel) or plan.info.reel or plan.config.reel

    def attributes(self, offset: Fraction, space: Space | None = None) -> Attributes:
        """Return what plates say of themselves.  offset: seconds from --start to the first.  space: of their
        numbers."""
        plan, plate = self.plan, self.plan.inputs.picture.plate
        own = Attributes() if plate is None else plate.attributes
        colours = own.chromaticities if plate is not None and space == plate.display.space else None
        return Attributes(first_timecode(plan, offset), plan.rate, own.aspect, colours, self.reel)

    def plates(self, offset: Fraction) -> PlateFormat | None:
        """Return how the result is written as OpenEXR, DPX or TIFF.  offset: seconds from --start to its first
        frame."""
        plan, config = self.plan, self.plan.config
        if not is_plate_format(config.result_path):
            return None
        plate = plate_of(plan.inputs)
        space = result_space(config, plate)
        names = (*"RGBA"[: 4 if self.composer.alpha else 3], *(("matte.A",) if config.matte == "embed" else ()))
        kind = config.exr_type or ("float" if plate.depth in ("float", "double") else "half")
        height, width = plate.values.shape[:2]
        return PlateFormat(
            kind,
            config.exr_compression,
            space,
            self.attributes(offset, space),
            associated(config.result_path, plate),
            plate.window if plan.paste_back else (0, 0),
            (width, height) if plan.paste_back else None,
            names,
        )

    def _with_references(self, detected: Iterable[DrivingFrame]) -> Iterator[DrivingFrame]:
        """Yield the frames, each as soon as the reference of its shot is known."""
        finder = self.finder
        waiting: list[tuple[int, DrivingFrame]] = []

        def known() -> Iterator[DrivingFrame]:
            while waiting and waiting[0][0] in finder.found:
                shot, frame = waiting.pop(0)
                self.references.setdefault(shot, finder.found[shot].motion)
                yield frame

        for frame in detected:
            waiting.append((finder.take(frame), frame))
            yield from known()
        finder.finish()
        yield from known()


def check_range(frames: FrameRange, last: int) -> None:
    """Raise UsageError where a range begins beyond the last frame."""
    if frames.first is not None and frames.first > last:
        raise UsageError(f"--frames {frames} is beyond the end", f"The last driving frame is number {last}.")


class Stage:
    """A plan on an engine: a session for each face, and what makes one frame of their pictures."""

    def __init__(self, plan: AnimationPlan, engine: Engine) -> None:
        """Raise MissingError and UsageError where the plan cannot be rendered."""
        self.plan, self.engine = plan, engine
        faces = plan.faces
        # Filters change finished frames, which hold all faces.
        self.sessions = [open_session(face, engine, len(faces), alone=not number) for number, face in enumerate(faces)]
        self.first = self.sessions[0]
        self._blend = FaceBlend.of([face.inputs for face in faces]) if len(faces) > 1 else None

    def driving(self, driving: Clip | Sequence[Motion]) -> DrivingMotion:
        """Return what reads the driving video, or the motions of all faces."""
        inputs = self.plan.inputs
        framings = [face.inputs.driving for face in self.plan.faces]
        return DrivingMotion(driving, framings, inputs.size, [session.detector for session in self.sessions])

    def detected(self, source: DrivingMotion, *, keep: bool) -> AbstractContextManager[list[Iterator[DrivingFrame]]]:
        """Return the frames with their motion, for each face.  keep: see `DrivingMotion`."""
        return source.detected(
            self.engine.family.motion(),
            self.first.renderer.device,
            beside=self.plan.side_by_side,
            at_once=all(session.finder.at_once for session in self.sessions),
            keep=keep,
        )

    def groups(self, detected: Sequence[Iterable[DrivingFrame]], frames: FrameRange) -> Iterator[tuple[Group, ...]]:
        """Yield what is rendered together, for each face; see `RenderSession.groups`."""
        each = (session.groups(found, frames) for session, found in zip(self.sessions, detected, strict=True))
        return zip(*each, strict=True)

    def render(self, groups: Sequence[Group], frames: FrameRange) -> Iterator[tuple[Sequence[Rendered], ...]]:
        """Yield the frames of a group that are in the range: for each face the batches of the same frames."""
        if len(self.sessions) == 1:
            for rendered in self.first.render(groups[0], frames):
                yield ((rendered,),)
            return
        faces = [list(session.render(group, frames)) for session, group in zip(self.sessions, groups, strict=True)]
        if any(faces):
            yield tuple(faces)

    def finish(self, faces: Sequence[Sequence[Rendered]], write: Write) -> None:
        """Compose what `render` gave, and write it."""
        pasted = (
            itertools.chain.from_iterable(map(session.composer.paste, batches))
            for session, batches in zip(self.sessions, faces, strict=True)
        )
        for layers in zip(*pasted, strict=True):
            self.first.composer.finish(self._together(layers), write)

    def _together(self, layers: tuple[Pasted, ...]) -> Pasted:
        first = layers[0]
        if self._blend is None:
            return first
        beside = [layer.driving for layer in layers if layer.driving is not None]
        return Pasted(
            first.timed,
            self._blend([layer.picture for layer in layers]),
            Planes(
                self._blend.there(layer.planes.matte for layer in layers),
                self._blend.there(layer.planes.uv for layer in layers),
            ),
            np.concatenate(beside) if beside else None,
        )


def open_session(plan: AnimationPlan, engine: Engine, faces: int = 1, *, alone: bool = True) -> RenderSession:
    """Bring the plan of one face onto an engine. Raises MissingError and UsageError.

    faces: how many share the result.  alone: are its frames finished here?
    """
    config, inputs, event = plan.config, plan.inputs, about(plan, engine)
    filters = engine.host.frame_filters(event) if alone else ()
    square_filters = engine.host.square_filters(event)
    if config.restore is not None and not square_filters:
        raise MissingError("no plugin is loaded that restores", "Leave out --restore, or name it in FOMMCTL_PLUGINS.")
    family_options = engine.options(config.options)
    renderer = engine.renderer(config.size, family_options)
    context = engine.encoded((inputs.square, *inputs.views), config.size, family_options)
    references: dict[int, MotionParts] = {}
    in_step = inputs.film is not None
    landmarks = engine.landmarks(family_options, config.detector)
    moves = MotionTransfer(
        with_landmarks(context.motion, landmarks, [inputs.square]),
        references,
        mode=plan.mode,
        adapt_scale=bool(config.adapt_scale),
        smooth=bool(config.smooth),
        room=inputs.room,
        ease=not config.as_published,
        rule=rule_of(renderer, plan.mode, family_options, film=in_step),
        openings=openings_of(engine.model.preset, config),
    )
    reconstruction = HostPixels(renderer.render(context, context.motion)).array()[0]
    # A square of fewer pixels than the model's frame has nothing more to give.
    finer = inputs.source_width > inputs.size[0]
    options = CompositionOptions(
        plan.paste_back,
        keeps_alpha(config, inputs),
        plan.side_by_side,
        config.keypoints,
        plan.detail
        and finer
        and inputs.turned is None
        and isinstance(renderer, FlowRenderer)
        and (plan.paste_back or not in_step),
        config.matte is not None,
        config.uv is not None,
        faces,
        # The colours of a source's frames are not corrected: the correction of each would flicker.
        matched=not in_step,
    )

    def composed(source: SourceFrame) -> Composer:
        own = config if source.present else replace(config, on_missing="skip")
        mask = engine.family.mask
        return Composer(own, source.inputs, options, source.motion, reconstruction, filters, square_filters, mask)

    if config.uv is not None and not isinstance(renderer, FlowRenderer):
        raise UsageError(
            f"--uv, but models of {engine.family.name} have no flow", "Leave it out, or take another model."
        )
    composer: Composer | PlateComposer
    if plan.deep:
        plate = plate_of(inputs)
        composer = PlateComposer(
            config,
            inputs,
            options,
            result_space(config, plate),
            context.motion,
            reconstruction,
            filters,
            square_filters,
            associated=associated(config.result_path, plate),
            mask=engine.family.mask,
        )
    else:
        composer = Composer(
            config, inputs, options, context.motion, reconstruction, filters, square_filters, engine.family.mask
        )
    return RenderSession(
        plan,
        engine,
        renderer,
        composer,
        _signature(plan, engine),
        MotionDetector(renderer, config.batch_size, landmarks),
        SquareRenderer(renderer, context, config.batch_size, with_flow=composer.wants_flow),
        ReferenceFinder(plan, context.motion),
        moves,
        references,
        SourceFilm(plan, renderer, landmarks) if in_step else None,
        composed,
    )


def _signature(plan: AnimationPlan, engine: Engine) -> Signature | None:
    """Return what signs the result, where --sign asks for it."""
    config = plan.config
    if config.sign is None or config.sign_key is None:
        return None
    identity = model_identity(engine.model)
    model = {"name": identity["name"], "sha256": identity["sha256"], "preset": engine.model.preset.name}
    return Signature(config.result_path, config.sign, config.sign_key, plan.files, model)


def about(plan: AnimationPlan, engine: Engine) -> StageEvent:
    """Return what listeners and frame filters are told when the run begins."""
    config = plan.config
    details = {"config": config.to_json(), "model": engine.model.name, "output": str(config.result_path)}
    return StageEvent(stage="animate", details=details)


def first_timecode(plan: AnimationPlan, offset: Fraction) -> str | None:
    """Return the driving video's timecode at the first frame that is used, counted at the result's rate.

    offset: seconds from --start to that frame.
    """
    info = plan.info
    first = info.timecode or plan.config.driving_timecode
    if first is None:
        return None
    skipped = math.ceil(plan.inputs.driving.start * info.coded_rate) + round(offset * info.coded_rate)
    return timecode.shifted(first, skipped, info.coded_rate, plan.rate)


def frames_to_render(plan: AnimationPlan) -> FrameRange:
    """Return which driving frames the options ask for."""
    return parse_frames(plan.config.frames)
