"""Animate: a still source moves like a driving video.

A run has three steps: the plan (inputs, squares, sound), the motion of the driving video, and the rendering of any of
its frames. `run` interleaves motion and rendering frame by frame; `make_motion`, `render_frames` and `encode_frames` do
one step each, in any number of processes, with the same result.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from fommctl.animate.compose import Planes, Rendered, Write
from fommctl.animate.config import SEARCHED, AnimateConfig, FrameRange
from fommctl.animate.detecting import QUEUED_BATCHES, DrivingMotion
from fommctl.animate.engine import Engine
from fommctl.animate.faces import plan_faces
from fommctl.animate.motion import Motion, Presentation, TimedFrame, save_motions
from fommctl.animate.plan import AnimationPlan, input_files, open_driving
from fommctl.animate.recording import AnimateResult, warn, write_sidecar
from fommctl.animate.rendering import Group, RenderSession, Stage, about
from fommctl.animate.results import Results, frame_path, load_frame, open_results, save_frame
from fommctl.api.specs import StageEvent
from fommctl.errors import UsageError
from fommctl.media.movie import Frame
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Clip
from fommctl.threads import ReadAhead, WriteBehind
from fommctl.workers import Progress


@dataclass(frozen=True, slots=True)
class RenderStats:
    """Statistics of a rendering."""

    rendered: int
    """Number of frames rendered; frames that are shown twice count once."""
    model_seconds: float
    """Time spent in the model, summed over all workers."""
    seconds: float
    """Time from the first frame read to the file closed."""
    batch_size: int
    references: tuple[Fraction, ...]
    """Times of the reference frames, one per shot that was reached."""
    limited: tuple[float, ...] = ()
    """Times of the frames whose motion was reduced to keep the subject in the square."""
    warnings: tuple[str, ...] = ()
    """Warnings of the reader, and about --frames."""


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

    phase(text): called before the first frame with what is being done, if that takes time.
    Raises UsageError, InputError, OutputError, ModelError or MissingError. After an error there is no file at the
    output, except that the result is kept if only its sidecar or its motion file cannot be written.
    """
    files = input_files(config)
    framing = engine.model.preset.framing
    if framing is not None and {config.crop, config.crop_of_driving} & {"auto", *SEARCHED}:
        phase(f"searching for a {framing.subject}")
    with open_driving(config, engine) as opened:
        plan, driving = plan_faces(config, engine, opened, files)
        return render(plan, engine, driving, report)


def render(
    plan: AnimationPlan, engine: Engine, driving: Clip | Sequence[Motion], report: Progress | None = None
) -> AnimateResult:
    """Render a plan in one piece and write its result. Raises the errors of `run`.

    driving: the driving video that was planned with, or one motion per face.
    """
    config = plan.config
    engine.host.started(about(plan, engine))
    stage = Stage(plan, engine)
    source = stage.driving(driving, keep=config.motion_out is not None)
    began = time.perf_counter()
    with source.detected() as detected:
        first, groups = _first_wanted(stage, stage.groups(detected))
        with open_results(stage.first, first) as results:
            _render(stage, groups, results.write, report, expected_frames(config, plan.info, plan.length))
        if config.motion_out is not None:
            # The motion file gets all frames, also those after the last one that was rendered.
            for rest in detected:
                for _ in rest:
                    pass
    if config.motion_out is not None:
        motions = _collected(source, stage) if isinstance(driving, Clip) else driving
        save_motions(motions, config.motion_out, overwrite=config.overwrite)
    return conclude(stage.first, results, _stats(stage, began, source.warnings))


def _merged(stats: Sequence[RenderStats], seconds: float) -> RenderStats:
    """Merge the statistics of the parts of a result."""
    return RenderStats(
        rendered=sum(each.rendered for each in stats),
        model_seconds=sum(each.model_seconds for each in stats),
        seconds=seconds,
        batch_size=min(each.batch_size for each in stats),
        references=max((each.references for each in stats), key=len),
        limited=tuple(sorted({moment for each in stats for moment in each.limited})),
        warnings=tuple(dict.fromkeys(warning for each in stats for warning in each.warnings)),
    )


def conclude(session: RenderSession, results: Results, stats: RenderStats) -> AnimateResult:
    """Describe a written result: return its description, write the sidecar, notify listeners.  results: already
    closed."""
    plan, engine, writer = session.plan, session.engine, results.writer
    config = plan.config
    late = tuple(dict.fromkeys((*stats.warnings, *limited(stats.limited), *writer.warnings)))
    warn(late)
    result = AnimateResult(
        output=config.result_path,
        frames=writer.frames_written,
        fps=plan.rate,
        width=writer.size[0],
        height=writer.size[1],
        audio=writer.audio_codec,
        model=engine.model.name,
        preset=engine.model.preset.name,
        device=str(session.detector.device),
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
            unsigned=None if results.signature is None else results.signature.unsigned_sha256,
        )
    engine.host.finished(StageEvent(stage="animate", details=result.to_json()))
    return result


def limited(times: Sequence[float]) -> list[str]:
    """Return the warning about frames at these times (seconds) whose motion was reduced to keep the subject in the
    square; none for no times."""
    if not times:
        return []
    span = f"{times[0]:.2f} s" if len(times) == 1 else f"{times[0]:.2f} to {times[-1]:.2f} s"
    return [f"{len(times)} frames ({span}) move further than the source has room for: their motion was reduced"]


def expected_frames(config: AnimateConfig, info: VideoInfo, length: Fraction | None = None) -> int | None:
    """Estimate the number of frames, for progress only.  length: seconds to render; None: to the end."""
    rate = config.fps or info.rate
    if info.duration is None:
        return info.frames
    expected = min(config.end_s or info.duration, info.duration) - config.start_s
    return max(0, round((expected if length is None else min(length, expected)) * rate))


# The three steps as separate functions, for runs that divide a long driving video: one process makes the motion, any
# number of processes render parts of it, one encodes. All arguments and results can be pickled.


def make_motion(
    config: AnimateConfig, engine: Engine, report: Progress | None = None
) -> tuple[AnimationPlan, list[Motion]]:
    """Plan a job and detect the motion of its driving video, for each animated face.

    report(driving frames done, expected). Notifies listeners that the job begins. Raises the errors of `run`.
    """
    files = input_files(config)
    with open_driving(config, engine) as opened:
        plan, driving = plan_faces(config, engine, opened, files)
        engine.host.started(about(plan, engine))
        if not isinstance(driving, Clip):
            return plan, driving
        stage = Stage(plan, engine)
        source = stage.driving(driving, keep=True)
        total = expected_frames(replace(plan.config, fps=None), plan.info, plan.length)
        with source.detected() as detected:
            for count, _ in enumerate(zip(*detected, strict=True), 1):
                if report and count % stage.first.batch_size == 0:
                    report(count, total)
    return replace(plan, warnings=(*plan.warnings, *source.warnings)), _collected(source, stage)


def divide(
    plan: AnimationPlan, motions: Sequence[Motion], pieces: int, *, batch_size: int, shortest: int = 1
) -> list[FrameRange]:
    """Divide the frames to render into at most `pieces` ranges of nearly equal length, none with fewer driving frames
    than `shortest`; each begins where a batch begins, so that no frame is rendered twice."""
    numbers = [timed.frame.number for timed in plan.timed(motions[0].frames())]
    starts = [number for number in numbers[::batch_size] if number in plan.frames]
    inside = [number for number in numbers if number in plan.frames]
    plan.frames.check_begun(numbers[-1])
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
    motions: Sequence[Motion],
    engine: Engine,
    frames: FrameRange,
    folder: Path,
    report: Progress | None = None,
) -> RenderedFrames:
    """Render a range of driving frames to lossless pictures in the existing folder `folder`.

    The frames equal those of a rendering in one piece, on any machine and in any order. Files that an earlier attempt
    has left are replaced.  report(frames done, frames of the range).
    """
    stage = Stage(plan, engine, frames)
    began = time.perf_counter()
    total = sum(number in frames for number in motions[0].numbers.tolist())

    def save(frame: Frame, presentation: Presentation, number: int, planes: Planes) -> None:
        save_frame(frame_path(folder, number, plan), frame, planes)

    with stage.driving(motions).detected() as detected:
        _render(stage, stage.groups(detected), save, report, total)
    return RenderedFrames(folder, _stats(stage, began, []))


def encode_frames(
    plan: AnimationPlan,
    motions: Sequence[Motion],
    engine: Engine,
    parts: Sequence[RenderedFrames],
    report: Progress | None = None,
) -> AnimateResult:
    """Write the result from the pictures of all ranges, as if rendered in one piece: sound, times, signature, sidecar.

    The pictures are left for the caller to remove. Notifies listeners that the job is finished.
    """
    session, began, timed = Stage(plan, engine).first, time.perf_counter(), plan.shown(motions[0])
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
        save_motions(motions, plan.config.motion_out, overwrite=plan.config.overwrite)
    stats = [part.stats for part in parts]
    seconds = max(each.seconds for each in stats) + time.perf_counter() - began
    merged = replace(_merged(stats, seconds), warnings=())
    return conclude(session, results, merged)


def _first_wanted(stage: Stage, groups: Iterator[tuple[Group, ...]]) -> tuple[TimedFrame, Iterator[tuple[Group, ...]]]:
    """Return the first frame of the result, and the groups from its own on; earlier groups only advance the
    transfer."""
    for group in groups:
        first = next((timed for timed in group[0] if timed.frame.number in stage.frames), None)
        if first is not None:
            return first, itertools.chain((group,), groups)
        for _ in stage.render(group):
            pass
    raise UsageError(f"--frames {stage.frames} selects no frame that is shown", "Choose others, or leave out --fps.")


def _render(
    stage: Stage,
    groups: Iterable[tuple[Group, ...]],
    write: Write,
    report: Progress | None,
    total: int | None,
) -> None:
    """Transfer, render, compose and write, the last two in a second thread.  total: for `report` only."""
    finish: Callable[[Sequence[Sequence[Rendered]]], None] = partial(stage.finish, write=write)
    with WriteBehind(finish, QUEUED_BATCHES) as sink:
        for group in groups:
            for rendered in stage.render(group):
                sink.put(rendered)
                if report:
                    report(stage.first.rendered, total)


def _stats(stage: Stage, began: float, warnings: Sequence[str]) -> RenderStats:
    seconds = time.perf_counter() - began
    return _merged(
        [
            RenderStats(
                rendered=session.rendered,
                model_seconds=session.model_seconds,
                seconds=seconds,
                batch_size=session.batch_size,
                references=tuple(reference.time for _, reference in sorted(session.finder.found.items())),
                limited=tuple(session.transfer.limited),
                warnings=(*warnings, *session.warnings),
            )
            for session in stage.sessions
        ],
        seconds,
    )


def _collected(source: DrivingMotion, stage: Stage) -> list[Motion]:
    engine = stage.engine
    return [
        Motion.of(frames, session.plan.inputs.driving, family=engine.family.name, model=engine.model.name)
        for frames, session in zip(source.frames, stage.sessions, strict=True)
    ]
