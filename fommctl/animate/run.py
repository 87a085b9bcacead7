"""Animate: a still source moves like a driving video.

A run has three steps: the plan (inputs, squares, sound), the motion of the driving video, and the rendering of any of
its frames. In one piece they follow each other frame by frame; `make_motion`, `render_frames` and `encode_frames` do
them one after the other, in as many processes as one likes, and the result is the same.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from fommctl.animate.compose import Composer, Rendered, apply_filter
from fommctl.animate.config import SEARCHED, AnimateConfig, FrameRange
from fommctl.animate.engine import Engine
from fommctl.animate.faces import FaceBlend, of_face, one_by_one
from fommctl.animate.motion import (
    DrivingFrame,
    Motion,
    Presentation,
    TimedFrame,
    save_motions,
)
from fommctl.animate.plan import AnimationPlan, InputFiles, input_files, open_driving, plan_animation
from fommctl.animate.planes import Planes
from fommctl.animate.recording import AnimateResult, write_sidecar
from fommctl.animate.rendering import (
    QUEUED_BATCHES,
    DrivingMotion,
    Group,
    RenderSession,
    about,
    check_range,
    frames_to_render,
    open_session,
)
from fommctl.animate.results import frame_path, load_frame, open_results, save_frame
from fommctl.api.specs import StageEvent
from fommctl.errors import UsageError
from fommctl.media.drawing import compare
from fommctl.media.images import Pixels
from fommctl.media.movie import Frame
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Clip
from fommctl.media.writer import Writer
from fommctl.threads import ReadAhead, WriteBehind

log = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]
"""report(frames done, frames in all or None)."""
Write = Callable[[Frame, Presentation, int, Planes], None]
"""write(finished frame, when it is shown, its number in the whole result from 0, its planes)."""


@dataclass(frozen=True, slots=True)
class RenderStats:
    """How a result was rendered."""

    rendered: int
    """Frames; those that are shown twice count once."""
    model_seconds: float
    """Spent in the model; of all workers together."""
    seconds: float
    """From the first frame read to the file closed."""
    batch_size: int
    references: tuple[Fraction, ...]
    """Time of the reference frame of each shot, as far as they were reached."""
    limited: tuple[float, ...] = ()
    """Times of the frames whose motion was cut so that the subject stays in the square."""
    warnings: tuple[str, ...] = ()
    """Of the reader."""


@dataclass(frozen=True, slots=True)
class RenderedFrames:
    """Finished frames as lossless pictures in a folder, named by their numbers in the result."""

    folder: Path
    stats: RenderStats


def run(
    config: AnimateConfig,
    engine: Engine,
    report: Progress | None = None,
    phase: Callable[[str], None] = lambda text: None,
) -> AnimateResult:
    """Animate one source with one driving video.

    phase(what is done before the first frame, where that takes time).
    Raises UsageError, InputError, OutputError, ModelError or MissingError; whatever is raised, nothing is left at the
    output, but where only its sidecar or its motion file cannot be written, the result stays.
    """
    files = input_files(config)
    framing = engine.model.preset.framing
    if framing is not None and {config.crop, config.crop_of_driving} & {"auto", *SEARCHED}:
        phase(f"searching for a {framing.subject}")
    with open_driving(config, engine) as driving:
        configs = one_by_one(config, engine, driving)
        if len(configs) > 1 and config.source_video:
            raise UsageError("--source-video animates one face", "Choose one by its number (--face).")
        if len(configs) == 1:
            driving = of_face(configs[0], engine, driving)
            return render(plan_animation(configs[0], engine, driving, files), engine, driving, report)
    return _render_faces(config, configs, engine, files, report)


def render(
    plan: AnimationPlan, engine: Engine, driving: Clip | Motion, report: Progress | None = None
) -> AnimateResult:
    """Render a plan in one piece and write its result. Raises as `run` does.

    driving: what it was planned with.
    """
    config, frames = plan.config, frames_to_render(plan)
    engine.host.started(about(plan, engine))
    session = open_session(plan, engine)
    source = DrivingMotion(driving, session)
    began = time.perf_counter()
    with source.detected(session.finder, keep=config.motion_out is not None) as detected:
        first, groups = _first_wanted(session, session.groups(detected, frames), frames)
        with open_results(session, first) as results:
            _render(session, groups, frames, results.write, report, expected_frames(config, plan.info, plan.length))
        if config.motion_out is not None:
            # Behind the last frame that was rendered there may be others.
            for _ in detected:
                pass
    if config.motion_out is not None:
        motion = driving if isinstance(driving, Motion) else _collected(source.frames, session)
        motion.save(config.motion_out, overwrite=config.overwrite)
    return conclude(session, results.writer, _stats(session, began, source.warnings))


@dataclass(frozen=True, slots=True)
class _Layer:
    """A moment of the result with one face animated."""

    timed: TimedFrame[DrivingFrame]
    presentation: Presentation
    number: int
    frame: Frame
    planes: Planes
    driving: Pixels | None
    """Driving frame that is shown beside it."""


def _render_faces(
    whole: AnimateConfig,
    configs: Sequence[AnimateConfig],
    engine: Engine,
    files: InputFiles,
    report: Progress | None,
) -> AnimateResult:
    """Render several faces of a source, each with a square and a motion of its own, into one picture.

    configs: the options of each face; whole: those of all.
    """
    with ExitStack() as opened:
        drivings = [opened.enter_context(open_driving(config, engine)) for config in configs]
        plans = [
            plan_animation(config, engine, driving, files) for config, driving in zip(configs, drivings, strict=True)
        ]
        notes = tuple(dict.fromkeys(note for plan in plans for note in plan.warnings))
        # As it was asked for: a sidecar tells it.
        config = replace(plans[0].config, face=whole.face, driving_face=whole.driving_face, face_map=whole.face_map)
        plan = replace(plans[0], warnings=notes, config=config)
        frames = frames_to_render(plan)
        engine.host.started(about(plan, engine))
        sessions = [open_session(each, engine, layer=True) for each in (plan, *plans[1:])]
        sources = [DrivingMotion(driving, session) for driving, session in zip(drivings, sessions, strict=True)]
        began = time.perf_counter()
        detected = [
            opened.enter_context(source.detected(session.finder, keep=config.motion_out is not None))
            for source, session in zip(sources, sessions, strict=True)
        ]
        layers = zip(
            *(_layers(session, found, frames) for session, found in zip(sessions, detected, strict=True)), strict=True
        )
        first = next(layers, None)
        if first is None:
            raise UsageError(f"--frames {frames}: none of these frames is shown", "Choose others, or leave out --fps.")
        finish = _finisher(plan, plans, sessions[0])
        shown = finish(first)
        total = expected_frames(config, plan.info, plan.length)
        with open_results(sessions[0], first[0].timed, shown[0].shape[1::-1]) as results:
            for moment in itertools.chain((first,), layers):
                frame, planes = shown if moment is first else finish(moment)
                results.write(frame, moment[0].presentation, moment[0].number, planes)
                if report:
                    report(results.writer.frames_written, total)
        if config.motion_out is not None:
            for rest in detected:
                for _ in rest:
                    pass
            motions = [
                driving if isinstance(driving, Motion) else _collected(source.frames, session)
                for driving, source, session in zip(drivings, sources, sessions, strict=True)
            ]
            save_motions(motions, config.motion_out, overwrite=config.overwrite)
    stats = [_stats(session, began, source.warnings) for session, source in zip(sessions, sources, strict=True)]
    return conclude(sessions[0], results.writer, _merged(stats, stats[0].seconds))


def _finisher(
    plan: AnimationPlan, plans: Sequence[AnimationPlan], session: RenderSession
) -> Callable[[tuple[_Layer, ...]], tuple[Frame, Planes]]:
    """Return what makes one frame, and its planes, of the layers of all faces. Raises UsageError."""
    engine, composer = session.engine, session.composer
    filters = engine.host.frame_filters(about(plan, engine))
    if filters and plan.deep:
        raise UsageError("frame filters of plugins cannot change several faces in plates", "Write PNG pictures.")
    blend = FaceBlend.of([each.inputs for each in plans], composer.canvas)

    def together(parts: Sequence[Frame | None]) -> Frame | None:
        there = [part for part in parts if part is not None]
        return blend(there) if there else None

    def finish(moment: tuple[_Layer, ...]) -> tuple[Frame, Planes]:
        frame = blend([layer.frame for layer in moment])
        seen = [layer.driving for layer in moment if layer.driving is not None]
        if seen and isinstance(composer, Composer):
            frame = compare(composer.source_panel, np.concatenate(seen), frame)
        for change in filters:
            frame = apply_filter(frame, change, moment[0].number)
        planes = [layer.planes for layer in moment]
        return frame, Planes(together([each.matte for each in planes]), together([each.uv for each in planes]))

    return finish


def _layers(session: RenderSession, detected: Iterable[DrivingFrame], frames: FrameRange) -> Iterator[_Layer]:
    """Yield the pictures of one face, moment by moment."""
    composer, beside = session.composer, session.plan.side_by_side
    for group in session.groups(detected, frames):
        for rendered in session.render(group, frames):
            finished: list[tuple[Frame, Presentation, int, Planes]] = []
            composer.finish(rendered, lambda *written, into=finished: into.append(written))
            found = iter(finished)
            for index, timed in enumerate(rendered.frames):
                if timed is None:
                    continue
                driving = None
                if beside and isinstance(composer, Composer):
                    driving = composer.driving_panel(timed.frame, rendered, index)
                for frame, presentation, number, planes in itertools.islice(found, len(timed.presentations)):
                    yield _Layer(timed, presentation, number, frame, planes, driving)


def _merged(stats: Sequence[RenderStats], seconds: float) -> RenderStats:
    """Put together how the parts of a result were rendered."""
    return RenderStats(
        rendered=sum(each.rendered for each in stats),
        model_seconds=sum(each.model_seconds for each in stats),
        seconds=seconds,
        batch_size=min(each.batch_size for each in stats),
        references=max((each.references for each in stats), key=len),
        limited=tuple(sorted({moment for each in stats for moment in each.limited})),
        warnings=tuple(dict.fromkeys(warning for each in stats for warning in each.warnings)),
    )


def conclude(session: RenderSession, writer: Writer, stats: RenderStats) -> AnimateResult:
    """Describe a result that is written, for the caller, its sidecar and listeners; `writer` is closed."""
    plan, engine = session.plan, session.engine
    config = plan.config
    late = tuple(dict.fromkeys((*stats.warnings, *limited(stats.limited), *writer.warnings)))
    for warning in late:
        log.warning(warning)
    result = AnimateResult(
        output=config.result_path,
        frames=writer.frames_written,
        fps=plan.rate,
        width=writer.size[0],
        height=writer.size[1],
        audio=writer.audio_codec,
        model=engine.model.name,
        preset=engine.model.preset.name,
        device=str(session.renderer.device),
        precision=engine.precision,
        motion=plan.mode,
        reference_s=float(stats.references[0]),
        model_rate=stats.rendered / stats.model_seconds,
        end_to_end_rate=stats.rendered / stats.seconds,
        detection_s=plan.inputs.detection_s,
        warnings=(*engine.model.notes, *plan.warnings, *late),
    )
    if config.sidecar:
        write_sidecar(
            plan,
            engine,
            result,
            references=stats.references,
            batch_size=stats.batch_size,
            encoder_threads=writer.threads,
            unsigned=None if session.signature is None else session.signature.unsigned_sha256,
        )
    engine.host.finished(StageEvent(stage="animate", details=result.to_json()))
    return result


def limited(times: Sequence[float]) -> list[str]:
    """Return what is said where the motion of frames at these times (seconds) was cut to stay in the source's
    square."""
    if not times:
        return []
    span = f"{times[0]:.2f} s" if len(times) == 1 else f"{times[0]:.2f} to {times[-1]:.2f} s"
    return [f"{len(times)} frames ({span}) move further than the source has room for: their motion was reduced"]


def expected_frames(config: AnimateConfig, info: VideoInfo, length: Fraction | None = None) -> int | None:
    """Return the number of frames, for progress only.  length: seconds that are wanted; None: to the end."""
    rate = config.fps or info.rate
    if info.duration is None:
        return info.frames
    expected = min(config.end_s or info.duration, info.duration) - config.start_s
    return max(0, round((expected if length is None else min(length, expected)) * rate))


# The three steps as functions of their own, for runs that divide a long driving video: one process makes the motion,
# any number of processes render parts of it, one encodes. All arguments and results can be pickled.


def make_motion(config: AnimateConfig, engine: Engine, report: Progress | None = None) -> tuple[AnimationPlan, Motion]:
    """Plan a job and detect the motion of its driving video.

    report(driving frames done, expected). Raises as `run` does. Listeners hear that the job begins.
    """
    files = input_files(config)
    with open_driving(config, engine) as driving:
        configs = one_by_one(config, engine, driving)
        if len(configs) > 1:
            raise UsageError(
                "several faces are rendered in one piece", "Leave out --split, or choose one face by its number."
            )
        driving = of_face(configs[0], engine, driving)
        plan = plan_animation(configs[0], engine, driving, files)
        engine.host.started(about(plan, engine))
        if isinstance(driving, Motion):
            return plan, driving
        session = open_session(plan, engine)
        source = DrivingMotion(driving, session)
        total = expected_frames(replace(plan.config, fps=None), plan.info, plan.length)
        with source.detected(session.finder, keep=True) as detected:
            for count, _ in enumerate(detected, 1):
                if report and count % session.batch_size == 0:
                    report(count, total)
    return replace(plan, warnings=(*plan.warnings, *source.warnings)), _collected(source.frames, session)


def divide(plan: AnimationPlan, motion: Motion, pieces: int, *, batch_size: int, shortest: int = 1) -> list[FrameRange]:
    """Divide what is to be rendered into at most `pieces` ranges of nearly equal length, none of fewer driving frames
    than `shortest`; each begins where a batch does, so that no frame is rendered twice."""
    wanted = frames_to_render(plan)
    numbers = [timed.frame.number for timed in timed_frames(plan, motion)]
    starts = [number for number in numbers[::batch_size] if number in wanted]
    inside = [number for number in numbers if number in wanted]
    check_range(wanted, numbers[-1])
    pieces = max(1, min(pieces, len(inside) // max(1, shortest)))
    chosen = [inside[0]]
    for piece in range(1, pieces):
        ideal = inside[piece * len(inside) // pieces]
        nearest = min(starts, key=lambda number: abs(number - ideal), default=chosen[-1])
        if nearest > chosen[-1]:
            chosen.append(nearest)
    ends = [number - 1 for number in chosen[1:]]
    return [FrameRange(first, last) for first, last in zip(chosen, [*ends, inside[-1]], strict=True)]


def render_frames(
    plan: AnimationPlan,
    motion: Motion,
    engine: Engine,
    frames: FrameRange,
    folder: Path,
    report: Progress | None = None,
) -> RenderedFrames:
    """Render a range of driving frames into lossless pictures in `folder`, which exists: on any machine, in any order,
    equal to the same frames of the whole.

    report(frames done, frames of the range). What an earlier attempt has left of the same range is replaced.
    """
    session = open_session(plan, engine)
    began = time.perf_counter()
    total = sum(number in frames for number in motion.numbers.tolist())

    def save(frame: Frame, presentation: Presentation, number: int, planes: Planes) -> None:
        save_frame(frame_path(folder, number, plan), frame, planes)

    groups = session.groups(motion.frames(engine.family.motion(), session.renderer.device), frames)
    _render(session, groups, frames, save, report, total)
    return RenderedFrames(folder, _stats(session, began, []))


def encode_frames(
    plan: AnimationPlan, motion: Motion, engine: Engine, parts: Sequence[RenderedFrames], report: Progress | None = None
) -> AnimateResult:
    """Write the result from the pictures of all ranges: with sound and times as in one piece, signed, with its sidecar.

    The pictures stay where they are; whoever made the folder removes it. Listeners hear that the job is finished.
    """
    session = open_session(plan, engine)
    frames, began = frames_to_render(plan), time.perf_counter()
    timed = [one for one in timed_frames(plan, motion) if one.frame.number in frames]
    folders = {part.folder for part in parts}

    def pictures() -> Iterator[tuple[Frame, Presentation, int, Planes]]:
        for one in timed:
            for number, presentation in enumerate(one.presentations, one.position):
                place = next(path for folder in folders if (path := frame_path(folder, number, plan)).exists())
                frame, planes = load_frame(place, alpha=session.composer.alpha)
                yield frame, presentation, number, planes

    with open_results(session, timed[0]) as results, ReadAhead(pictures(), QUEUED_BATCHES) as read:
        for finished in read:
            results.write(*finished)
            if report:
                report(results.writer.frames_written, len(timed))
    if plan.config.motion_out is not None:
        motion.save(plan.config.motion_out, overwrite=plan.config.overwrite)
    stats = [part.stats for part in parts]
    seconds = max(each.seconds for each in stats) + time.perf_counter() - began
    merged = replace(_merged(stats, seconds), warnings=())
    return conclude(session, results.writer, merged)


def _first_wanted(
    session: RenderSession, groups: Iterator[Group], frames: FrameRange
) -> tuple[TimedFrame[DrivingFrame], Iterator[Group]]:
    """Return the first frame of the result, and the groups from its own on; the transfer has seen those before."""
    for group in groups:
        first = next((timed for timed in group if timed.frame.number in frames), None)
        if first is not None:
            return first, itertools.chain((group,), groups)
        for _ in session.render(group, frames):
            pass
    raise UsageError(f"--frames {frames}: none of these frames is shown", "Choose others, or leave out --fps.")


def _render(
    session: RenderSession,
    groups: Iterable[Group],
    frames: FrameRange,
    write: Write,
    report: Progress | None,
    total: int | None,
) -> None:
    """Transfer, render, compose and write, the last two in a thread of their own.  total: for `report` only."""
    with WriteBehind[Rendered](lambda batch: session.composer.finish(batch, write), QUEUED_BATCHES) as sink:
        for group in groups:
            for rendered in session.render(group, frames):
                sink.put(rendered)
                if report:
                    report(session.rendered, total)


def timed_frames(plan: AnimationPlan, motion: Motion) -> Iterator[TimedFrame[DrivingFrame]]:
    """Yield the frames that are shown, and when."""
    return plan.timed(motion.frames())


def _stats(session: RenderSession, began: float, warnings: Sequence[str]) -> RenderStats:
    found = session.finder.found
    return RenderStats(
        rendered=session.rendered,
        model_seconds=session.model_seconds,
        seconds=time.perf_counter() - began,
        batch_size=session.batch_size,
        references=tuple(found[shot].time for shot in sorted(found)),
        limited=tuple(session.moves.limited),
        warnings=(*warnings, *session.warnings),
    )


def _collected(frames: Sequence[DrivingFrame], session: RenderSession) -> Motion:
    engine = session.engine
    return Motion.of(frames, session.plan.inputs.driving, family=engine.family.name, model=engine.model.name)
