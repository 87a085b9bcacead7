"""The configuration of `crop`, from which its command-line options are built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from fommctl.errors import UsageError
from fommctl.media import Deinterlace
from fommctl.media.times import parse_rate, parse_time
from fommctl.options import Reads, configuration, option

AudioMode = Literal["auto", "none"]
PROCEDURE = 1
"""Version of the procedure; raising it makes the next run replace all clips."""
_HOW_ONLY = ("inputs", "output", "workers", "overwrite", "dry_run")
"""Options that do not change a clip."""
_ADDED = ("start", "end", "max_duration", "max_fps", "min_size")
"""Options that earlier versions lacked."""
TRACKING, RESULT = "Tracking and framing", "Result"
"""Panels of --help."""


@configuration
class CropConfig:
    """Inputs and options of one crop.

    The defaults are those of the published rule (`crop-video.py` of the FOMM code), except for the shortest clip, which
    is in seconds instead of frames.
    """

    inputs: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        typer.Argument(
            help="Videos, pictures, folders of them, and patterns (*.mp4, frames/%05d.png).", metavar="INPUT..."
        ),
    ]
    output: Annotated[
        Path | None, option(RESULT, "Folder for clips, manifest.csv and manifest.json.", "-o", "--output")
    ] = None
    """Folder of the clips; None only with `dry_run`."""
    dry_run: Annotated[
        bool, option(RESULT, "Only print the squares and the ffmpeg commands that cut them.", "--dry-run")
    ] = False
    preset: Annotated[
        str | None,
        option(TRACKING, "Preset whose framing is used. Default: the built-in model's.", "-p", "--preset"),
    ] = None
    detector: Annotated[
        str | None, option(TRACKING, "Subject detector (see 'fommctl plugins list'). Default: the best one available.")
    ] = None
    iou: Annotated[
        float, Field(ge=0, lt=1), option(TRACKING, "Overlap (IoU) with a track's first box that continues the track.")
    ] = 0.25
    margin: Annotated[
        float,
        Field(ge=0, le=10),
        option(TRACKING, "Least margin around the union of a track's boxes, as a fraction of it."),
    ] = 0.1
    """Margin on each side, divided by the longer side of the union."""
    min_duration: Annotated[
        Fraction, Field(ge=0), Reads(parse_time), option(TRACKING, "Shortest clip: seconds or M:SS.")
    ] = Fraction(1)
    min_frames: Annotated[
        int | None,
        Field(ge=1),
        option(TRACKING, "Shortest clip in frames, instead of --min-duration (published: 150)."),
    ] = None
    max_gap: Annotated[
        Fraction,
        Field(ge=0),
        Reads(parse_time),
        option(TRACKING, "Longest gap without a detection within a track, in seconds (published: 0)."),
    ] = Fraction(1)
    rate: Annotated[Fraction, Field(gt=0), Reads(parse_rate), option(TRACKING, "Frames per second to search.")] = (
        Fraction(5)
    )
    cuts: Annotated[bool, option(TRACKING, "End clips at scene changes.", "--cuts/--no-cuts")] = True
    start: Annotated[
        Fraction,
        Field(ge=0),
        Reads(parse_time),
        option(TRACKING, "Use every source from this time on: seconds or M:SS."),
    ] = Fraction(0)
    end: Annotated[
        Fraction | None, Field(gt=0), Reads(parse_time), option(TRACKING, "Use every source up to this time.")
    ] = None
    max_duration: Annotated[
        Fraction | None,
        Field(gt=0),
        Reads(parse_time),
        option(TRACKING, "Longest clip: longer ones are split. Seconds or M:SS."),
    ] = None
    max_fps: Annotated[
        Fraction | None, Field(gt=0), Reads(parse_rate), option(RESULT, "Highest frame rate of the clips.")
    ] = None
    min_size: Annotated[
        int,
        Field(ge=0),
        option(TRACKING, "Smallest square in source pixels; smaller subjects are skipped."),
    ] = 0
    size: Annotated[int, Field(ge=16, le=8192), option(RESULT, "Side of the clips in pixels.")] = 256
    fps: Annotated[
        Fraction | None,
        Field(gt=0),
        Reads(parse_rate),
        option(RESULT, "Frame rate of numbered pictures (default 25)."),
    ] = None
    deinterlace: Annotated[
        Deinterlace,
        option(
            RESULT,
            "Interlaced footage: auto makes full frames at its frame rate; field makes one per field, at twice the "
            "rate; off leaves it interlaced.",
        ),
    ] = "auto"
    audio: Annotated[AudioMode, option(RESULT, "auto: clips keep the sound of their source; none.")] = "auto"
    codec: Annotated[str | None, option(RESULT, "Video encoder. Default: H.264.")] = None
    crf: Annotated[int | None, option(RESULT, "Encoder quality: lower is better, and makes larger files.")] = None
    pix_fmt: Annotated[str | None, option(RESULT, "Pixel format of the clips, such as yuv444p.")] = None
    workers: Annotated[int | None, Field(ge=1), option(RESULT, "Files in parallel. Default: one per core.")] = None
    overwrite: Annotated[bool, option(RESULT, "Make clips again even if they are up to date.")] = False

    def conflicts(self) -> Iterator[UsageError]:
        """Yield an error for each combination of options that is impossible."""
        from fommctl.media.containers import resolve_encoding

        if self.output is None and not self.dry_run:
            yield UsageError("no output folder for the clips", "Give one with -o, or use --dry-run.")
        if self.end is not None and self.end <= self.start:
            yield UsageError("--start and --end leave nothing to crop", "--end must be after --start.")
        try:
            resolve_encoding(Path("clip.mp4"), codec=self.codec, crf=self.crf, pix_fmt=self.pix_fmt)
        except UsageError as error:
            yield error

    def fingerprint(self, detector: str, framing: tuple[str, float] | None) -> str:
        """Return a hash of all options that affect the clips of a file.

        detector: name of the detector.  framing: kind of subject, and its width in the square.
        """
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _HOW_ONLY}
        # Default values of newer options do not count, so that clips of earlier versions are kept.
        for field in fields(self):
            if field.name in _ADDED and options[field.name] == field.default:
                del options[field.name]
        options.update(detector=detector, preset=framing, procedure=PROCEDURE)
        return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
