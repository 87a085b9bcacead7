"""Animate: a still source moves like a driving video, streamed from file to file."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fommctl.animate.config import AnimateConfig
from fommctl.animate.driving import DrivingReader
from fommctl.animate.engine import Engine
from fommctl.animate.preparation import Prepared, about, prepare, settle
from fommctl.animate.result import AnimateResult
from fommctl.animate.streaming import Progress, cues_of, expected_frames, stream
from fommctl.api.specs import StageEvent
from fommctl.media.writer import Writer
from fommctl.provenance.recording import write_sidecar

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a result was rendered."""

    rendered: int
    """Frames; those that are shown twice count once."""
    model_seconds: float
    """Spent in the model; of all workers together."""
    seconds: float
    """From the first frame read to the file closed."""
    batch_size: int


def run(config: AnimateConfig, engine: Engine, report: Progress | None = None) -> AnimateResult:
    """Animate one source with one driving video.

    Raises UsageError, InputError, OutputError or MissingError; whatever is raised, nothing is left at the output, but
    where only its sidecar cannot be written, the result stays.
    """
    settled = settle(config, engine)
    config = settled.config
    event = about(config, engine)
    engine.host.started(event)
    prepared = prepare(settled, engine, event)
    rendering = prepared.rendering()
    began = time.perf_counter()
    with DrivingReader(config, settled.shot) as reader, prepared.writer() as writer:
        stream(prepared, cues_of(reader, config), rendering, writer, report, expected_frames(config, settled.info))
    pace = Pace(rendering.frames, rendering.seconds, time.perf_counter() - began, rendering.batch_size)
    return conclude(prepared, writer, pace, (*reader.warnings, *limited(prepared.choreography.limited)))


def conclude(prepared: Prepared, writer: Writer, pace: Pace, warnings: Sequence[str]) -> AnimateResult:
    """What comes once the result is written; `writer` is closed.  warnings: of the readers."""
    settled, engine = prepared.settled, prepared.engine
    config = settled.config
    late = tuple(dict.fromkeys((*warnings, *writer.warnings)))
    for warning in late:
        log.warning(warning)
    result = AnimateResult(
        output=config.result_path,
        frames=writer.frames_written,
        fps=settled.rate,
        width=writer.size[0],
        height=writer.size[1],
        audio=writer.audio_codec,
        model=engine.model.name,
        preset=engine.model.preset.name,
        device=str(prepared.renderer.device),
        precision=engine.precision,
        motion=settled.mode,
        reference_s=float(settled.references[0].time),
        model_rate=pace.rendered / pace.model_seconds,
        end_to_end_rate=pace.rendered / pace.seconds,
        detection_s=settled.shot.detection_s,
        warnings=(*engine.model.notes, *settled.warnings, *late),
    )
    if config.sidecar:
        write_sidecar(
            settled,
            engine,
            result,
            batch_size=pace.batch_size,
            encoder_threads=writer.threads,
            unsigned=None if prepared.signature is None else prepared.signature.unsigned_sha256,
        )
    engine.host.finished(StageEvent(stage="animate", details=result.to_json()))
    return result


def limited(times: Sequence[float]) -> list[str]:
    """What is said where the motion of frames at these times (seconds) was cut to stay in the source's square."""
    if not times:
        return []
    span = f"{times[0]:.2f} s" if len(times) == 1 else f"{times[0]:.2f} to {times[-1]:.2f} s"
    return [f"{len(times)} frames ({span}) move further than the source has room for: their motion was reduced"]
