"""From driving frames to rendered squares: read, detect, transfer, render.

Any range of frames equals the same frames of the whole, because batches begin at the same frames.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np
from torch import Tensor

from fommctl.animate.compose import Composer, Pasted, Planes, Rendered, Write
from fommctl.animate.config import AnimateConfig, FrameRange
from fommctl.animate.detecting import Batched, DrivingMotion, MotionDetector, with_landmarks
from fommctl.animate.engine import Engine
from fommctl.animate.faces import FaceBlend
from fommctl.animate.inputs import AnimationInputs, framed, open_source, square_at
from fommctl.animate.motion import DrivingFrame, Motion, TimedFrame
from fommctl.animate.plan import AnimationPlan, openings_of
from fommctl.animate.plates import PlateComposer
from fommctl.animate.reference import ReferenceFinder
from fommctl.animate.transfer import MotionTransfer, rule_of
from fommctl.api.protocols import FlowRenderer, Renderer, SourceContext
from fommctl.api.specs import StageEvent
from fommctl.detection.landmarks import LandmarkFinder
from fommctl.errors import MissingError, UsageError
from fommctl.media.images import Picture
from fommctl.media.reader import Clip, Frame
from fommctl.networks.grids import HostPixels, to_tensor
from fommctl.networks.motion import MotionParts
from fommctl.threads import batches

Group = list[TimedFrame]
"""Driving frames that are rendered together."""


class SquareRenderer(Batched):
    """Renders the squares of a source batch by batch."""

    def __init__(
        self, renderer: Renderer, context: SourceContext, batch_size: int | None, *, with_flow: bool = False
    ) -> None:
        """with_flow: render the flow too, where the renderer is a FlowRenderer."""
        super().__init__(batch_size, renderer.device)
        self._renderer = renderer
        self._context = context
        self._with_flow = with_flow

    def __call__(
        self, motion: MotionParts, context: SourceContext | None = None
    ) -> Iterator[tuple[slice, HostPixels, Tensor, Tensor | None]]:
        """Yield the rows of the motion that were rendered, their pixels, the same before rounding, and their flow.

        context: another source than the one given to the constructor.
        """
        context, renderer = context or self._context, self._renderer

        def rendered(part: slice) -> tuple[HostPixels, Tensor, Tensor | None]:
            flow: Tensor | None = None
            if self._with_flow and isinstance(renderer, FlowRenderer):
                frames, flow = renderer.render_with_flow(context, motion[part])
            else:
                frames = renderer.render(context, motion[part])
            return HostPixels(frames), frames, flow

        for part, found in self.in_batches(len(motion), rendered):
            yield part, *found


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """A frame of a video as source, ready to be animated."""

    inputs: AnimationInputs
    """The inputs of the plan, with this frame as picture and its square."""
    context: SourceContext
    motion: MotionParts
    present: bool
    """Whether it shows the subject; a frame without it is not animated."""


class SourceFilm:
    """Reads a video as source in order of time, and encodes the frames that are asked for: each driving frame moves the
    source's frame of the same time."""

    def __init__(self, plan: AnimationPlan, renderer: Renderer, landmarks: LandmarkFinder | None) -> None:
        self._plan, self._renderer, self._landmarks = plan, renderer, landmarks
        self._frames = _shown(plan.config)
        self._coming: Frame | None = next(self._frames)
        self._here: Frame | None = None
        self._encoded: SourceFrame | None = None

    def at(self, time: Fraction) -> SourceFrame:
        """Return the source's frame at this time, which must not be earlier than in the last call."""
        while self._coming is not None and (self._here is None or self._coming.time <= time):
            self._here, self._encoded = self._coming, None
            self._coming = next(self._frames, None)
        assert self._here is not None
        if self._encoded is None:
            self._encoded = self._prepared(self._here)
        return self._encoded

    def _prepared(self, frame: Frame) -> SourceFrame:
        plan, film = self._plan, self._plan.inputs.film
        assert film is not None
        box, turned = square_at(film, frame.time)
        square = framed(frame.pixels, box, turned, plan.inputs.size, plan.config)
        inputs = replace(plan.inputs, picture=Picture(frame.pixels), source_box=box, turned=turned, square=square)
        pictures = to_tensor([square, *plan.inputs.views], self._renderer.device)
        context = self._renderer.encode_source(pictures)
        motion = with_landmarks(context.motion, self._landmarks, [square])
        return SourceFrame(inputs, context, motion, film.present(frame.time))


def _shown(config: AnimateConfig) -> Iterator[Frame]:
    with open_source(config) as clip, clip.reader() as reader:
        yield from reader


class RenderSession:
    """The plan of one face on an engine, ready to render."""

    def __init__(
        self, plan: AnimationPlan, engine: Engine, frames: FrameRange, faces: int = 1, *, alone: bool = True
    ) -> None:
        """Encode the source and prepare everything else that does not change from frame to frame.

        frames: range to render.  faces: number of faces that share the result.  alone: whether this session also
        runs the plugins' frame filters.  Raises MissingError and UsageError if the plan cannot be rendered.
        """
        config, inputs, event = plan.config, plan.inputs, about(plan, engine)
        filters = engine.host.frame_filters(event) if alone else ()
        square_filters = engine.host.square_filters(event)
        if config.restore is not None and not square_filters:
            raise MissingError(
                "no plugin for --restore is loaded", "Leave out --restore, or add the plugin to FOMMCTL_PLUGINS."
            )
        options, film = engine.options(config.options), inputs.film is not None
        renderer = engine.renderer(config.size, options)
        context = engine.encoded((inputs.square, *inputs.views), config.size, options)
        landmarks = engine.landmarks(options, config.detector)
        self.plan, self.engine = plan, engine
        self._frames = frames
        self._references: dict[int, MotionParts] = {}
        self.transfer = MotionTransfer(
            with_landmarks(context.motion, landmarks, [inputs.square]),
            self._references,
            mode=plan.mode,
            adapt_scale=bool(config.adapt_scale),
            smooth=bool(config.smooth),
            room=inputs.room,
            ease=not config.as_published,
            rule=rule_of(renderer, plan.mode, options, film=film),
            openings=openings_of(engine.model.preset, config),
            expression=1.0 if config.expression is None else config.expression,
        )
        # A source square of fewer pixels than the model's frame has no detail to add.
        width = inputs.picture.pixels.shape[1] if inputs.source_box is None else round(inputs.source_box.width)
        finer = width > inputs.size[0] and inputs.turned is None and isinstance(renderer, FlowRenderer)
        self._composed = partial(
            PlateComposer if plan.deep else Composer,
            reconstruction=HostPixels(renderer.render(context, context.motion)).array()[0],
            filters=filters,
            square_filters=square_filters,
            mask=engine.family.mask,
            detail=plan.detail and finer and (plan.paste_back or not film),
            faces=faces,
        )
        if config.uv is not None and not isinstance(renderer, FlowRenderer):
            raise UsageError(
                f"--uv, but models of {engine.family.name} have no flow", "Leave it out, or take another model."
            )
        self.composer = self._composed(plan, context.motion)
        self.detector = MotionDetector(renderer, config.batch_size, landmarks)
        self._squares = SquareRenderer(renderer, context, config.batch_size, with_flow=self.composer.wants_flow)
        self.finder = ReferenceFinder(plan, context.motion)
        self._film = SourceFilm(plan, renderer, landmarks) if film else None
        self.rendered = 0
        """Number of frames rendered; frames that are shown twice count once."""
        self._seconds = 0.0
        """Time spent in the transfer."""
        self.warnings: list[str] = []

    @property
    def batch_size(self) -> int:
        """The batch size in effect, after any halving."""
        return min(self._squares.batch_size, self.detector.batch_size)

    @property
    def model_seconds(self) -> float:
        """Time spent in the model."""
        return self._seconds + self.detector.seconds + self._squares.seconds

    def groups(self, detected: Iterable[DrivingFrame]) -> Iterator[Group]:
        """Yield batches of frames to render together, the same as in a rendering of all frames.

        Frames before the range are included, because the transfer depends on them.
        """
        frames, last = self._frames, 0
        for batch in batches(self.plan.timed(self._with_reference(detected)), self.detector.usual):
            yield batch
            last = batch[-1].frame.number
            if frames.ends_before(last + 1):
                return
        frames.check_begun(last)
        if frames.ends_before(last + 1) or frames.last is None or self.plan.config.fps:
            return
        self.warnings.append(f"--frames {frames}: the last driving frame is number {last}")

    def _with_reference(self, detected: Iterable[DrivingFrame]) -> Iterator[DrivingFrame]:
        """Yield the frames, each as soon as the reference of its shot is known."""
        waiting: deque[tuple[int, DrivingFrame]] = deque()
        for frame in detected:
            waiting.append((self.finder.take(frame), frame))
            while waiting and waiting[0][0] in self.finder.found:
                yield waiting.popleft()[1]
        self.finder.finish()
        for _, frame in waiting:
            yield frame

    def render(self, group: Group) -> Iterator[Rendered]:
        """Yield the frames of a group that are in the range, in one or several batches; advances the state of the
        transfer."""
        began = time.perf_counter()
        driving = MotionParts.cat([timed.frame.motion for timed in group if timed.frame.motion is not None])
        moments = []
        for timed in group:
            shot = self.plan.inputs.driving.number_at(timed.frame.time)
            reference = self.finder.found[shot]
            self._references[shot] = reference.motion
            moments.append(self.plan.moment(timed.frame, shot, reference.time))
        wanted = [timed.frame.number in self._frames for timed in group]
        sources = None
        if self._film is not None and any(wanted):
            sources = [self._film.at(timed.frame.time) for timed in group]
        own = None if sources is None else MotionParts.cat([source.motion for source in sources])
        # The transfer has state and must see each frame once: it runs before the rendering, which may be retried.
        reduced = len(self.transfer.limited)
        motion = self.transfer(driving, moments, own)
        self._seconds += time.perf_counter() - began
        if not any(wanted):
            del self.transfer.limited[reduced:]
            return
        if sources is not None:
            yield from self._in_step(group, wanted, sources, driving, motion)
            return
        for part, pixels, exact, flow in self._squares(motion):
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
        """Yield the frames of a group for a video as source; driving frames of one source frame are rendered
        together."""
        for source, numbers in itertools.groupby(range(len(group)), key=lambda number: sources[number]):
            rows = [number for number in numbers if wanted[number]]
            if not rows:
                continue
            part, shown, config = slice(rows[0], rows[-1] + 1), group[rows[0] : rows[-1] + 1], self.plan.config
            if not source.present:
                shown = [replace(timed, frame=replace(timed.frame, present=False)) for timed in shown]
                config = replace(config, on_missing="skip")
            own = replace(self.plan, config=config, inputs=source.inputs)
            composed = partial(self._composed, own, source.motion)
            for some, pixels, exact, flow in self._squares(motion[part], source.context):
                self.rendered += len(shown[some])
                yield Rendered(pixels, shown[some], driving[part][some], motion[part][some], exact, flow, composed)


class Stage:
    """A plan on an engine: one session per face, and the blend of their pictures."""

    def __init__(self, plan: AnimationPlan, engine: Engine, frames: FrameRange | None = None) -> None:
        """Open a session for each face.  frames: a part of the range that the options ask for.  Raises MissingError and
        UsageError if the plan cannot be rendered."""
        self.plan, self.engine = plan, engine
        self.frames = plan.frames if frames is None else frames
        faces = plan.faces
        # Frame filters run on the blended frames: only the first session has them.
        self.sessions = [
            RenderSession(face, engine, self.frames, len(faces), alone=not number) for number, face in enumerate(faces)
        ]
        self.first = self.sessions[0]
        self._blend = FaceBlend.of([face.inputs for face in faces]) if len(faces) > 1 else None

    def driving(self, driving: Clip | Sequence[Motion], *, keep: bool = False) -> DrivingMotion:
        """Return the driving motion of all faces, from the video or from motions.  keep: see `DrivingMotion`."""
        return DrivingMotion(
            driving,
            [session.plan.inputs.driving for session in self.sessions],
            self.plan.inputs.size,
            [session.detector for session in self.sessions],
            kind=self.engine.family.motion(),
            beside=self.plan.side_by_side,
            at_once=all(session.finder.at_once for session in self.sessions),
            keep=keep,
        )

    def groups(self, detected: Sequence[Iterable[DrivingFrame]]) -> Iterator[tuple[Group, ...]]:
        """Yield the frames to render together, one group per face; see `RenderSession.groups`."""
        return zip(*map(RenderSession.groups, self.sessions, detected), strict=True)

    def render(self, groups: Sequence[Group]) -> Iterator[tuple[Sequence[Rendered], ...]]:
        """Yield the rendered frames of a group that are in the range: for each face, batches of the same frames."""
        if len(self.sessions) == 1:
            for rendered in self.first.render(groups[0]):
                yield ((rendered,),)
            return
        faces = [list(session.render(group)) for session, group in zip(self.sessions, groups, strict=True)]
        if any(faces):
            yield tuple(faces)

    def finish(self, faces: Sequence[Sequence[Rendered]], write: Write) -> None:
        """Compose and write the frames that `render` yielded."""
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


def about(plan: AnimationPlan, engine: Engine) -> StageEvent:
    """Return the event that listeners and frame filters receive when the run begins."""
    config = plan.config
    details = {"config": config.to_json(), "model": engine.model.name, "output": str(config.result_path)}
    return StageEvent(stage="animate", details=details)
