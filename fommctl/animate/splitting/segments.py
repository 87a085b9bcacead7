"""What workers do with a segment, and with all of them before and after."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fommctl.animate.driving import DrivingReader
from fommctl.animate.engine import Engine
from fommctl.animate.motion import Memory, Moment
from fommctl.animate.preparation import Settled, about, prepare
from fommctl.animate.rendering import batches, usual_batch_size
from fommctl.animate.result import AnimateResult
from fommctl.animate.run import Pace, conclude, limited
from fommctl.animate.splitting.planning import Plan, Segment, divide
from fommctl.animate.streaming import Progress, cues_of, stream
from fommctl.animate.timing import Cue
from fommctl.errors import FommctlError
from fommctl.media.joining import JoiningWriter, Part, PartWriter
from fommctl.networks.grids import to_tensor
from fommctl.networks.transfer import Motion


class NotAsPlannedError(FommctlError):
    """The frames of a segment are not those that the packets of the file promised: it is damaged. In one piece it can
    be rendered."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class RenderedSegment:
    """A part of the result, and how it was made."""

    part: Part
    pace: Pace
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """The motion of a segment's driving frames, on the CPU, in the batches in which they were looked at."""

    batches: tuple[Motion, ...]
    moments: tuple[tuple[Moment, ...], ...]


def begin(engine: Engine, settled: Settled, pieces: int, shortest: int) -> Plan | None:
    """The plan of a shot on this engine; listeners hear that it begins where it is worth dividing."""
    config = settled.config
    plan = divide(settled, pieces, _batch_size(engine, settled), shortest)
    if plan is not None:
        engine.host.started(about(config, engine))
    return plan


def look(engine: Engine, settled: Settled, plan: Plan, segment: Segment) -> Seen:
    """Detect the motion of the driving frames, without rendering any."""
    renderer, size = engine.renderer(settled.config.size), _batch_size(engine, settled)
    motions, moments = [], []
    with _open(settled, segment) as reader:
        for batch in batches(_cues(reader, settled, plan, segment), size):
            try:
                motion = renderer.detect(to_tensor([cue.frame.pixels for cue in batch], renderer.device))
            except torch.OutOfMemoryError as error:
                raise NotAsPlannedError(
                    f"the memory of {renderer.device} does not suffice for batches of {size}"
                ) from error
            motions.append(motion.to("cpu"))
            moments.append(tuple(settled.moment(cue.frame.time) for cue in batch))
    return Seen(tuple(motions), tuple(moments))


def remember(engine: Engine, settled: Settled, seen: Sequence[Seen]) -> tuple[Memory, ...]:
    """What the choreography knows at the beginning of each segment, but for the first, which begins with nothing."""
    prepared = prepare(settled, engine, about(settled.config, engine))
    memories = []
    for segment in seen[:-1]:
        for motion, moments in zip(segment.batches, segment.moments, strict=True):
            prepared.choreography(motion.to(prepared.renderer.device), moments)
        memories.append(prepared.choreography.memory())
    return tuple(memories)


def render(
    engine: Engine,
    settled: Settled,
    plan: Plan,
    segment: Segment,
    memory: Memory | None,
    folder: Path,
    report: Progress | None = None,
) -> RenderedSegment:
    """Render a segment into a part of the result, in `folder`. report(frames of the segment done, all of them).

    memory: of the choreography at its beginning; None where it needs none. Raises NotAsPlannedError.
    """
    config = settled.config
    prepared = prepare(settled, engine, about(config, engine), segment.shown)
    if memory is not None:
        prepared.choreography.resume(memory)
    rendering = prepared.rendering()
    began = time.perf_counter()
    part = folder / f"{segment.number:05d}"
    with _open(settled, segment) as reader, PartWriter(config.result_path, part, **prepared.writing()) as writer:
        stream(prepared, _cues(reader, settled, plan, segment), rendering, writer, report, segment.frames)
    pace = Pace(rendering.frames, rendering.seconds, time.perf_counter() - began, rendering.batch_size)
    return RenderedSegment(writer.part, pace, (*reader.warnings, *limited(prepared.choreography.limited)))


def join(engine: Engine, settled: Settled, segments: Sequence[RenderedSegment], seconds: float) -> AnimateResult:
    """The result from the parts of all segments.  seconds: since the first of them began."""
    began = time.perf_counter()
    prepared = prepare(settled, engine, about(settled.config, engine))
    options = prepared.writing()
    with JoiningWriter(settled.config.result_path, complete=prepared.signature, **options) as writer:
        writer.join([segment.part for segment in segments])
    warnings = list(dict.fromkeys(warning for segment in segments for warning in segment.warnings))
    pace = Pace(
        rendered=sum(segment.pace.rendered for segment in segments),
        model_seconds=sum(segment.pace.model_seconds for segment in segments),
        seconds=seconds + time.perf_counter() - began,
        batch_size=min(segment.pace.batch_size for segment in segments),
    )
    return conclude(prepared, writer, pace, warnings)


def _batch_size(engine: Engine, settled: Settled) -> int:
    return settled.config.batch_size or usual_batch_size(engine.device)


def _open(settled: Settled, segment: Segment) -> DrivingReader:
    """The driving video from the segment's first frame on."""
    return DrivingReader(settled.config, settled.shot, begin=segment.begin)


def _cues(reader: DrivingReader, settled: Settled, plan: Plan, segment: Segment) -> Iterator[Cue]:
    """What is rendered of a segment, with times since the beginning of the whole. Raises NotAsPlannedError."""
    shown, count, end = segment.shown, 0, segment.begin
    for cue in cues_of(reader, settled.config, first=plan.origin, shown=segment.shown):
        if not count and cue.frame.time != segment.begin:
            raise _not_as_planned(settled)
        count += 1
        shown += len(cue.showings)
        end = cue.frame.time + cue.frame.duration
        yield cue
        if count == segment.frames:
            break
    if segment.end is None:
        return
    # At a given rate, frames on which no moment falls may come after the last one that is rendered.
    early = settled.config.fps is None and end < segment.end
    if (count, shown) != (segment.frames, segment.shown_at_end) or early or end > segment.end:
        raise _not_as_planned(settled)


def _not_as_planned(settled: Settled) -> NotAsPlannedError:
    return NotAsPlannedError(
        f"{settled.config.driving.name} does not hold the frames that it lists", "It may be damaged: copy it again."
    )
