"""Animate: a still source moves like a driving video, streamed from file to file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fommctl.api.specs import StageEvent
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Reader
from fommctl.media.writer import Writer
from fommctl.stages.compose import Rendered
from fommctl.stages.engine import Engine
from fommctl.stages.options import AnimateConfig
from fommctl.stages.pipeline import ReadAhead, WriteBehind
from fommctl.stages.preparation import Prepared, about, prepare, settle
from fommctl.stages.reference import open_driving
from fommctl.stages.rendering import Rendering, batches
from fommctl.stages.timing import as_driven, at_rate

log = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]
"""report(frames done, frames in all or None)."""
QUEUED_BATCHES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateResult:
    """What was written and how; `to_json` is the command's --json."""

    output: Path
    frames: int
    fps: Fraction
    width: int
    height: int
    audio: str | None
    model: str
    preset: str
    device: str
    precision: str
    motion: str
    """relative or absolute."""
    reference_s: float
    """Time of the reference frame in the driving video."""
    model_rate: float
    """Frames a second of the model alone."""
    end_to_end_rate: float
    """Frames a second from the first frame read to the file closed; detection is not in it."""
    detection_s: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For --json: more keys may be added, none of these changes."""
        return {
            "output": str(self.output),
            "frames": self.frames,
            "fps": f"{self.fps.numerator}/{self.fps.denominator}",
            "width": self.width,
            "height": self.height,
            "duration_s": round(float(self.frames / self.fps), 6),
            "audio": self.audio,
            "model": self.model,
            "preset": self.preset,
            "device": self.device,
            "precision": self.precision,
            "motion": self.motion,
            "reference_s": round(self.reference_s, 6),
            "frames_per_second": {"model": round(self.model_rate, 2), "end_to_end": round(self.end_to_end_rate, 2)},
            "detection_s": round(self.detection_s, 3),
            "warnings": list(self.warnings),
        }


def run(config: AnimateConfig, engine: Engine, report: Progress | None = None) -> AnimateResult:
    """Animate one source with one driving video.

    Raises UsageError, InputError, OutputError or MissingError; whatever is raised, nothing is left at the output.
    """
    settled = settle(config, engine)
    event = about(config, engine)
    engine.host.started(event)
    prepared = prepare(settled, engine, event)
    rendering = prepared.rendering()
    began = time.perf_counter()
    with open_driving(config, settled.shot) as reader, prepared.writer() as writer:
        _stream(prepared, reader, rendering, writer, report)
    elapsed = time.perf_counter() - began
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
        reference_s=float(settled.reference_time),
        model_rate=rendering.frames / rendering.seconds,
        end_to_end_rate=rendering.frames / elapsed,
        detection_s=settled.shot.detection_s,
        warnings=(*engine.model.notes, *settled.warnings, *reader.warnings, *writer.warnings),
    )
    engine.host.finished(StageEvent(stage="animate", details=result.to_json()))
    return result


def _stream(prepared: Prepared, reader: Reader, rendering: Rendering, writer: Writer, report: Progress | None) -> None:
    """Decode, render, compose and encode, each in a thread of its own, a few batches apart."""
    config, composer = prepared.settled.config, prepared.composer
    length = None if config.end is None else config.end - (config.start or 0)
    cues = at_rate(reader, config.fps, length) if config.fps else as_driven(reader)
    total = _expected_frames(config, prepared.settled.info)

    def finish(batch: Rendered) -> None:
        composer.write(batch, writer)

    with (
        WriteBehind(finish, QUEUED_BATCHES) as sink,
        ReadAhead(batches(cues, rendering.batch_size), QUEUED_BATCHES) as read,
    ):
        for batch in read:
            for rendered in rendering(batch):
                sink.put(rendered)
                if report:
                    report(rendering.frames, total)


def _expected_frames(config: AnimateConfig, info: VideoInfo) -> int | None:
    """For progress only."""
    rate = config.fps or info.rate
    if info.duration is None:
        return info.frames
    end = min(config.end or info.duration, info.duration)
    return max(0, round((end - (config.start or 0)) * rate))
