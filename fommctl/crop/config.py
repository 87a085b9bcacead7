"""The options of `crop`: one frozen configuration, checked as a whole before any work is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from fommctl.animate.config import check_choice
from fommctl.detection.framing import GONE, RATE
from fommctl.errors import UsageError
from fommctl.media.containers import resolve_encoding
from fommctl.media.decoding import Deinterlace

AudioMode = Literal["auto", "none"]
PROCEDURE = 1
"""Counts up where the same options would give other clips: then a second run makes them anew."""
_HOW_ONLY = ("inputs", "output", "workers", "overwrite", "dry_run")
"""Options that do not change a clip."""
_ADDED = ("start", "end", "max_duration", "max_fps", "min_size")
"""Options that earlier versions did not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """What to cut and how. The defaults are those of the published rule (`crop-video.py` of the FOMM code), but for
    the shortest clip, which is given in seconds."""

    inputs: tuple[str, ...]
    """Files, folders, and patterns of files (`*.mp4`) or of frames (`%05d.png`)."""
    output: Path | None = None
    """The folder for the clips and the manifests; None only with `dry_run`."""
    preset: str | None = None
    """Whose framing is used; None: that of the built-in model."""
    detector: str | None = None
    iou: float = 0.25
    """Overlap with the first box of a track, above which a detection belongs to it."""
    margin: float = 0.1
    """Around the union of a track's boxes on every side, at least, in parts of its longer side."""
    min_duration: Fraction = Fraction(1)
    """Seconds of the shortest clip."""
    min_frames: int | None = None
    """Frames of the shortest clip (published: 150), instead of `min_duration`."""
    max_gap: Fraction = Fraction(GONE)
    """Seconds without a detection that a track outlives (published: 0, with a detection in every frame)."""
    rate: Fraction = RATE
    """Frames a second that are searched."""
    start: Fraction = Fraction(0)
    """Start of the part of every source that is searched, in seconds."""
    end: Fraction | None = None
    """End of that part."""
    max_duration: Fraction | None = None
    """Seconds of the longest clip: longer ones are divided."""
    max_fps: Fraction | None = None
    """Highest frame rate of the clips."""
    min_size: int = 0
    """Side of the smallest square that is cut, in pixels of the source."""
    size: int = 256
    """Side of the clips in pixels."""
    cuts: bool = True
    """End tracks at scene changes."""
    fps: Fraction | None = None
    """Of patterns of frames."""
    deinterlace: Deinterlace = "auto"
    """Of interlaced footage."""
    audio: AudioMode = "auto"
    codec: str | None = None
    crf: int | None = None
    pix_fmt: str | None = None
    workers: int | None = None
    """Files at a time; None: one for each core."""
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_choice("--audio", self.audio, get_args(AudioMode))
        check_choice("--deinterlace", self.deinterlace, get_args(Deinterlace))
        if not self.inputs:
            raise UsageError("nothing to crop", "Name a file, a folder or a pattern.")
        if self.output is None and not self.dry_run:
            raise UsageError("there is no folder for the clips", "Give one with -o, or only look with --dry-run.")
        if not 0 <= self.iou < 1:
            raise UsageError(f"--iou is {self.iou:g}", "Give a number from 0 up to, but not, 1; published: 0.25.")
        if not 0 <= self.margin <= 10:
            raise UsageError(f"--margin is {self.margin:g}", "Give a number from 0 to 10; published: 0.1.")
        for name, least in (
            ("min_duration", 0),
            ("max_gap", 0),
            ("min_frames", 1),
            ("size", 16),
            ("min_size", 0),
            ("workers", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}", f"Give a number of {least} or more.")
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise UsageError("no time lies between --start and --end", "Give an end after the start.")
        if self.max_duration is not None and self.max_duration <= 0:
            raise UsageError("--max-duration is 0", "Give seconds, such as 10.")
        if self.size > 8192:
            raise UsageError(f"--size is {self.size}", "Give at most 8192 pixels.")
        resolve_encoding(Path("clip.mp4"), codec=self.codec, crf=self.crf, pix_fmt=self.pix_fmt)

    def fingerprint(self, detector: str, framing: tuple[str, float] | None) -> str:
        """Of everything that decides what the clips of a file are.

        detector: its name.  framing: the subject and its width.
        """
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _HOW_ONLY}
        # Clips of earlier versions, which did not know these options, are kept.
        for field in fields(self):
            if field.name in _ADDED and options[field.name] == field.default:
                del options[field.name]
        options.update(detector=detector, preset=framing, procedure=PROCEDURE)
        return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
