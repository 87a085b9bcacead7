"""Animate: a still source moves like a driving video, streamed from file to file."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fommctl import __version__
from fommctl.api.specs import StageEvent
from fommctl.core.pixels import HostPixels, to_tensor
from fommctl.core.transfer import Motion
from fommctl.media import timecode
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.reader import Reader
from fommctl.media.writer import AudioSource, Writer, check_output, holds_alpha
from fommctl.stages.choreography import Choreography
from fommctl.stages.compose import Composer, Look, Rendered
from fommctl.stages.engine import Engine
from fommctl.stages.options import AnimateConfig
from fommctl.stages.pipeline import ReadAhead, WriteBehind
from fommctl.stages.reference import find_reference, open_driving
from fommctl.stages.rendering import Rendering, batches
from fommctl.stages.shot import Shot, plan
from fommctl.stages.sound import choose_sound
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
    check_outputs(config)
    mode = engine.motion(config.motion)
    engine.check_views(len(config.views))
    info = probe(config.driving, fps=config.fps)
    sound = choose_sound(config, info)
    shot = plan(config, info, engine.model.preset.framing, engine.frame_size(config.size), engine.host)
    event = _started(config, engine)
    filters = engine.host.frame_filters(event)
    renderer = engine.renderer(config.size)
    context = renderer.encode_source(to_tensor([shot.square, *shot.views], renderer.device))
    notes = (*shot.warnings, *_about_model(config, engine, context.motion))
    for note in notes:
        log.warning(note)
    reference_time, reference = find_reference(config, shot, info, renderer, context)
    choreography = Choreography(
        context.motion, reference, mode=mode, adapt_scale=config.adapt_scale, smooth=config.smooth
    )
    rendering = Rendering(renderer, context, choreography, lambda cue: shot.present(cue.frame.time), config.batch_size)
    reconstruction = HostPixels(renderer.render(context, context.motion)).array()[0]
    composer = Composer(config, shot, _look(config, shot), context.motion, reconstruction, filters)
    began = time.perf_counter()
    with open_driving(config, shot) as reader, _writer(config, composer, info, sound, engine) as writer:
        _stream(config, info, reader, rendering, composer, writer, report)
    elapsed = time.perf_counter() - began
    result = AnimateResult(
        output=config.result_path,
        frames=writer.frames_written,
        fps=config.fps or info.rate,
        width=writer.size[0],
        height=writer.size[1],
        audio=writer.audio_codec,
        model=engine.model.name,
        preset=engine.model.preset.name,
        device=str(renderer.device),
        precision=engine.precision,
        motion=mode,
        reference_s=float(reference_time),
        model_rate=rendering.frames / rendering.seconds,
        end_to_end_rate=rendering.frames / elapsed,
        detection_s=shot.detection_s,
        warnings=(*engine.model.notes, *notes, *reader.warnings, *writer.warnings),
    )
    engine.host.finished(StageEvent(stage="animate", details=result.to_json()))
    return result


def _stream(
    config: AnimateConfig,
    info: VideoInfo,
    reader: Reader,
    rendering: Rendering,
    composer: Composer,
    writer: Writer,
    report: Progress | None,
) -> None:
    """Decode, render, compose and encode, each in a thread of its own, a few batches apart."""
    length = None if config.end is None else config.end - (config.start or 0)
    cues = at_rate(reader, config.fps, length) if config.fps else as_driven(reader)
    total = _expected_frames(config, info)

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


def check_outputs(config: AnimateConfig) -> None:
    """Raise UsageError or OutputError where the result could not be written."""
    check_output(
        config.result_path,
        config.overwrite,
        inputs=(config.source, config.driving, *config.views),
        codec=config.codec,
        crf=config.crf,
        pix_fmt=config.pix_fmt,
    )


def _started(config: AnimateConfig, engine: Engine) -> StageEvent:
    """The listeners know."""
    details = {"config": config.to_json(), "model": engine.model.name, "output": str(config.result_path)}
    event = StageEvent(stage="animate", details=details)
    engine.host.started(event)
    return event


def _about_model(config: AnimateConfig, engine: Engine, source: Motion) -> list[str]:
    """What the user should know of how the model is used."""
    notes, preset, (width, _) = [], engine.model.preset, engine.frame_size()
    if config.crop == "auto" and preset.framing is None and preset.dataset is None:
        notes.append(
            "what this model was trained on is not known: nothing is cropped (a --preset for faces would crop)"
        )
    if config.size not in (None, width):
        notes.append(f"frames of {config.size} pixels: trained at {width}, the model's motion still sees {width}")
    if config.keypoints and not source.keypoints.shape[1]:
        notes.append("this model has no keypoints: none are drawn")
    return notes


def _look(config: AnimateConfig, shot: Shot) -> Look:
    paste_back = shot.source_box is not None and config.paste_back is not False
    alpha = (
        paste_back
        and shot.picture.alpha is not None
        and not config.compare
        and not config.keypoints
        and holds_alpha(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
    )
    # Keypoints are drawn on source and driving frame: both have to be in the picture.
    return Look(paste_back, alpha, config.compare or config.keypoints, config.keypoints)


def _writer(
    config: AnimateConfig, composer: Composer, info: VideoInfo, sound: AudioSource | None, engine: Engine
) -> Writer:
    width, height = composer.canvas
    model = engine.model
    comment = f"Synthetic video, animated by fommctl {__version__} with model {model.name}, preset {model.preset.name}"
    return Writer(
        config.result_path,
        width=width,
        height=height,
        rate=config.fps or info.rate,
        alpha=composer.alpha,
        audio=sound,
        # Frames of HDR and wide-gamut clips arrive as bt709: their own tags would be wrong.
        colour=None if info.hdr or info.colour.wide_gamut else info.colour,
        codec=config.codec,
        crf=config.crf,
        pix_fmt=config.pix_fmt,
        metadata={"comment": comment},
        timecode=_timecode(config, info),
        overwrite=config.overwrite,
    )


def _timecode(config: AnimateConfig, info: VideoInfo) -> str | None:
    """The driving video's timecode at the first frame that is used, counted at the result's rate."""
    if info.timecode is None:
        return None
    skipped = math.ceil((config.start or Fraction(0)) * info.rate)
    return timecode.shifted(info.timecode, skipped, info.rate, config.fps)


def _expected_frames(config: AnimateConfig, info: VideoInfo) -> int | None:
    """For progress only."""
    rate = config.fps or info.rate
    if info.duration is None:
        return info.frames
    end = min(config.end or info.duration, info.duration)
    return max(0, round((end - (config.start or 0)) * rate))
