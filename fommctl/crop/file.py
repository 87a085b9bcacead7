"""The job of one file: search it, cut its clips."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.api.protocols import Detector
from fommctl.crop.config import CropConfig
from fommctl.crop.search import Piece, Tell, pieces_of_picture, pieces_of_video
from fommctl.crop.write import ffmpeg_command, write_clip, write_still
from fommctl.host import load_host
from fommctl.media.images import over_black, read_picture
from fommctl.media.probe import VideoInfo, probe
from fommctl.presets.preset import Framing


@dataclass(frozen=True, slots=True)
class Job:
    """One source, and the name of its clips."""

    source: Path
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class CroppedSource:
    """The clips of one source."""

    rows: tuple[dict[str, Any], ...] = ()
    """Its clips, by the columns of the manifest."""
    commands: tuple[str, ...] = ()
    """ffmpeg's, one for each clip, of a dry run."""
    warnings: tuple[str, ...] = ()


def prepare(config: CropConfig, detector: str, framing: Framing | None) -> Callable[[Job, Tell], CroppedSource]:
    """The function that does jobs, with a detector of its own (by name)."""
    spec = load_host().find("detector", detector)
    built: Detector = spec.build()

    def work(job: Job, tell: Tell) -> CroppedSource:
        return crop_file(job, config, (detector, built), framing, tell)

    return work


def crop_file(
    job: Job, config: CropConfig, detector: tuple[str, Detector], framing: Framing | None, tell: Tell
) -> CroppedSource:
    """Cut the clips of one source, or, in a dry run, only find them. Where it fails, none
    of its clips is left."""
    written: list[Path] = []
    try:
        return _crop(job, config, detector, framing, tell, written)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _crop(
    job: Job,
    config: CropConfig,
    detector: tuple[str, Detector],
    framing: Framing | None,
    tell: Tell,
    written: list[Path],
) -> CroppedSource:
    info = probe(job.source, fps=config.fps, deinterlace=config.deinterlace)
    pixels = None
    if info.kind == "image":
        picture = read_picture(job.source)
        pixels = over_black(picture.pixels, picture.alpha)
        pieces = pieces_of_picture(pixels, config, detector[1], framing)
    else:
        pieces = pieces_of_video(info, config, detector[1], framing, tell)
    folder = config.output or Path()
    rows, commands, warnings = [], [], []
    for number, piece in enumerate(pieces):
        target = folder / f"{job.name}#track{number}{'.mp4' if pixels is None else '.png'}"
        frames = piece.frames
        if config.dry_run:
            commands.append(ffmpeg_command(info, piece, target, config))
        else:
            written.append(target)
            if pixels is None:
                frames, notes = write_clip(info, piece, target, config, tell)
                warnings += [note for note in notes if note not in warnings]
            else:
                write_still(pixels, piece, target, config)
        rows.append(_row(info, piece, target, config, detector[0], frames))
    return CroppedSource(tuple(rows), tuple(commands), tuple(warnings))


def _row(info: VideoInfo, piece: Piece, target: Path, config: CropConfig, detector: str, frames: int) -> dict[str, Any]:
    box = piece.box
    return {
        "source": os.fspath(info.path),
        "output": target.name,
        "start": float(piece.start),
        "end": float(piece.end),
        "box": [round(side) for side in (box.left, box.top, box.right, box.bottom)],
        "size": config.size,
        "detector": detector,
        "score": round(piece.score, 4),
        "frames": frames,
        "fps": None if info.kind == "image" else f"{info.rate.numerator}/{info.rate.denominator}",
    }
