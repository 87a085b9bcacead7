"""One clip of a raw data set, cut, squared and written: what a worker process of `preprocess` does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from fommctl.api.values import ClipRecord
from fommctl.datasets.keypoints import keypoints_path, write_keypoints
from fommctl.errors import InputError
from fommctl.media import Deinterlace, stills
from fommctl.media.boxes import Box, square
from fommctl.media.conversion import View
from fommctl.media.files import DEFAULT_RATE
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Frame, Reader
from fommctl.media.resampling import Pixels
from fommctl.media.sound_choice import choose_tracks
from fommctl.media.writer import AudioSource, Writer, holds_audio
from fommctl.preprocess.config import Fit
from fommctl.preprocess.keypoints import KeypointRows
from fommctl.preprocess.manifest import Measure, measure
from fommctl.workers import Tell

SLACK = Fraction(1, 1000)
"""Seconds by which a frame may lie before the start, or before the end, of its clip: data sets round their times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOptions:
    """How every clip of a run is written."""

    size: int
    """Side of the square frames in pixels."""
    format: str
    """`png` for a folder of pictures, else the suffix of a video without its dot."""
    fit: Fit
    """What is done with a part that is no square: `pad` takes in what is around it, `crop` its middle, `stretch` all
    of it out of shape."""
    audio: bool
    """Keep the sound where there is some and the format holds it."""
    deinterlace: Deinterlace = "auto"
    """Of interlaced footage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipJob:
    """A clip to make."""

    record: ClipRecord
    target: Path
    """The file, or the folder of pictures, which does not exist yet."""
    options: ClipOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What was written."""

    frames: int
    rate: Fraction
    """Nominal frames a second."""
    measure: Measure
    warnings: tuple[str, ...]
    keypoints: Measure | None = None
    """Of the file of true keypoints beside it."""


def make_clip(job: ClipJob, tell: Tell = lambda done, total: None) -> Made:
    """Write the clip, one frame at a time, with tell(frames written, None) after each, and its true keypoints beside
    it where the record has some. Raises FommctlError; whatever is raised, nothing is left at the target."""
    record, rate = job.record, nominal_rate(job.record)
    keypoints = KeypointRows.of(record, job.options.size)
    if record.frames is not None:
        return _write(job, _cut(job, record.frames(), rate, keypoints), rate, tell, keypoints)
    assert record.path is not None
    if (strip := _strip(record.path)) is not None:
        return _write(job, _cut(job, strip, rate, keypoints), rate, tell, keypoints)
    info = probe(record.path, fps=rate, deinterlace=job.options.deinterlace)
    start, end = _times(record)
    side = job.options.size
    box = _part(job, info.width, info.height)
    with Reader(
        record.path,
        fps=rate,
        start=start,
        end=end,
        box=box,
        size=(side, side),
        deinterlace=job.options.deinterlace,
    ) as reader:
        frames = iter(reader) if keypoints is None else _followed(reader, keypoints, box)
        return _write(job, frames, info.rate, tell, keypoints, reader)


def nominal_rate(record: ClipRecord) -> Fraction:
    """Frames a second of a folder of frames; 29.97 written with enough digits is 30000/1001."""
    if record.rate is None:
        return DEFAULT_RATE
    if not math.isfinite(record.rate) or record.rate <= 0:
        raise InputError(f"the frame rate is {record.rate}", "It has to be above zero.")
    return Fraction(record.rate).limit_denominator(1001)


def squared(box: Box | None, width: int, height: int, fit: Fit) -> Box | None:
    """The part of a picture of this size that becomes the square frame; None for all of it.

    `pad` and `crop` give the smallest square around the box and the largest in its middle.
    """
    part = box or Box(0, 0, width, height)
    if fit == "stretch" or round(part.width) == round(part.height):
        return box
    return square(part.center, (max if fit == "pad" else min)(part.width, part.height))


def _part(job: ClipJob, width: int, height: int) -> Box | None:
    """What of frames of this size becomes the square. Raises InputError where the record's box shows nothing of it."""
    box, frame = job.record.box, job.record.box_frame
    if box is not None and frame is not None:
        box = box.scaled(width / frame[0], height / frame[1])
    if box is not None and not box.clipped(width, height).area > 0:
        raise InputError(f"the box {box} lies outside the picture of {width}x{height}", "Check the data set's boxes.")
    return squared(box, width, height, job.options.fit)


def _strip(path: Path) -> list[Pixels] | None:
    """The square frames that stand side by side in a picture, as some published data sets have them; None where the
    file is no such picture."""
    still = stills.identify(path, strip=True) if path.is_file() else None
    if still is None or still.animated:
        return None
    count = count_frames(path)
    return read_frames(path, range(count)) if count > 1 else None


def _times(record: ClipRecord) -> tuple[Fraction, Fraction | None]:
    """Start and end in seconds, each a little early, so that rounding loses no first frame and adds no last one."""
    start, end = record.start or 0.0, record.end
    if not math.isfinite(start) or start < 0 or (end is not None and not start < end < math.inf):
        raise InputError(f"the clip lasts from {start} to {end} s", "The end has to lie after the start.")
    return max(Fraction(0), Fraction(start) - SLACK), None if end is None else Fraction(end) - SLACK


def _followed(reader: Reader, keypoints: KeypointRows, box: Box | None) -> Iterator[Frame]:
    """The reader's frames, with their keypoints noted; each frame's number is told by its time."""
    for frame in reader:
        keypoints.add(
            round((reader.start + frame.time) * reader.info.rate), (reader.info.width, reader.info.height), box
        )
        yield frame


def _cut(job: ClipJob, pictures: Iterable[Pixels], rate: Fraction, keypoints: KeypointRows | None) -> Iterator[Frame]:
    """Frames in memory, cut and resized as those of a file are."""
    start, end = _times(job.record)
    side = job.options.size
    for index, pixels in enumerate(pictures):
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise InputError(f"frame {index} is {pixels.dtype} {pixels.shape}", "Frames are (H, W, 3) uint8.")
        time = index / rate
        if end is not None and time >= end:
            return
        if time >= start:
            height, width = pixels.shape[:2]
            part = _part(job, width, height)
            if keypoints is not None:
                keypoints.add(index, (width, height), part)
            view = View((width, height), part, (side, side))
            yield Frame(view.apply(pixels), index, time, 1 / rate)


def _write(
    job: ClipJob,
    frames: Iterator[Frame],
    rate: Fraction,
    tell: Tell,
    keypoints: KeypointRows | None,
    reader: Reader | None = None,
) -> Made:
    first = next(frames, None)
    if first is None:
        raise InputError("the clip has no frame", "Check its times against the length of the raw file.")
    picture = job.options.format == "png"
    path = job.target / "%07d.png" if picture else job.target
    info = reader.info if reader else None
    tags = info.colour if info and not (info.hdr or info.colour.wide_gamut) else None
    sound, warnings = _sound(reader, first, path) if reader and job.options.audio and not picture else ((), [])
    side = job.options.size
    # One thread an encoder: the workers are the threads, and the bytes are the same on every machine.
    with Writer(path, width=side, height=side, rate=rate, audio=sound, colour=tags, threads=1) as writer:
        for frame in chain((first,), frames):
            writer.write(frame.pixels, frame.time - first.time, frame.duration)
            tell(writer.frames_written, None)
    warnings += [*(reader.warnings if reader else ()), *writer.warnings]
    points = None if keypoints is None else _write_points(job.target, keypoints)
    made = measure(job.target)
    return Made(frames=writer.frames_written, rate=rate, measure=made, warnings=tuple(warnings), keypoints=points)


def _write_points(target: Path, keypoints: KeypointRows) -> Measure:
    path = keypoints_path(target)
    try:
        write_keypoints(path, keypoints.array())
    except OSError:
        path.unlink(missing_ok=True)
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise
    return measure(path)


def _sound(reader: Reader, first: Frame, path: Path) -> tuple[tuple[AudioSource, ...], list[str]]:
    """The raw file's sound from the first frame on, and what should be said about it."""
    info: VideoInfo = reader.info
    if not holds_audio(path):
        return (), []
    end = None if reader.end is None else info.origin + reader.end
    return choose_tracks(info, info.origin + reader.start + first.time, end)
