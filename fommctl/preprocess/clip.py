"""Cuts, squares and writes one clip of a raw data set, in a worker process of preprocess."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import ClipRecord
from fommctl.datasets.keypoints import checked, keypoints_path, write_keypoints
from fommctl.errors import InputError
from fommctl.media import Deinterlace, stills
from fommctl.media.boxes import Box, square
from fommctl.media.conversion import View
from fommctl.media.files import DEFAULT_RATE
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Frame, Reader
from fommctl.media.resampling import Pixels
from fommctl.media.sound import AudioSource, choose_tracks
from fommctl.media.writer import Writer, holds_audio
from fommctl.preprocess.config import Fit
from fommctl.preprocess.manifest import Measure, measure
from fommctl.provenance.hashing import InputFile
from fommctl.workers import Progress, Work

SLACK = Fraction(1, 1000)
"""Seconds by which clips start and end earlier than recorded, because data sets round their times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOptions:
    """Options for all clips of a run."""

    size: int
    """Side of the square frames in pixels."""
    format: str
    """`png` for a folder of pictures, else the suffix of a video without its dot."""
    fit: Fit
    """Treatment of a part that is not square: `pad` includes its surroundings, `crop` keeps its middle, `stretch`
    distorts it."""
    audio: bool
    """Whether sound is kept, if the format supports sound."""
    deinterlace: Deinterlace = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipJob:
    """A clip to write."""

    record: ClipRecord
    target: Path
    """File, or folder of pictures, that does not exist yet."""
    options: ClipOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenClip:
    """A clip that was written."""

    frames: int
    rate: Fraction
    """Nominal frames per second."""
    measure: Measure
    """Size and hash of the clip."""
    warnings: tuple[str, ...]
    keypoints: Measure | None = None
    """Size and hash of the file of true keypoints; None without keypoints."""
    source_sha256: str | None = None
    """Hash of the raw file; None for generated frames."""


def make_clip(job: ClipJob, report: Progress = lambda done, total: None) -> WrittenClip:
    """Write a clip frame by frame, with its true keypoints beside it if the record has any.

    report: called as report(frames written, None) after each frame.  Raises FommctlError; then nothing is left at the
    target.
    """
    record, rate = job.record, nominal_rate(job.record)
    keypoints = KeypointRows.of(record, job.options.size)
    if record.frames is not None:
        return _write(job, _cut(job, record.frames(), rate, keypoints), rate, report, keypoints)
    assert record.path is not None
    if (strip := _strip(record.path)) is not None:
        return _write(job, _cut(job, strip, rate, keypoints), rate, report, keypoints)
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
        frames = iter(reader) if keypoints is None else _with_keypoints(reader, keypoints, box)
        return _write(job, frames, info.rate, report, keypoints, reader)


def source_hash(path: Path) -> str:
    """Return the hash of a raw file or of a folder of frames, computed once for all of its clips unless it changes."""
    return InputFile.of(path).sha256()


def nominal_rate(record: ClipRecord) -> Fraction:
    """Return the frame rate of a record, or the default; a rounded 29.97003 becomes 30000/1001.

    Raises InputError if it is not a positive number.
    """
    if record.rate is None:
        return DEFAULT_RATE
    if not math.isfinite(record.rate) or record.rate <= 0:
        raise InputError(f"invalid frame rate {record.rate}", "It must be above zero.")
    return Fraction(record.rate).limit_denominator(1001)


def squared(box: Box | None, width: int, height: int, fit: Fit) -> Box | None:
    """Return the part of a width x height picture that becomes the square frame; None for all of it.

    `pad` returns the smallest square around the box, `crop` the largest in its middle, `stretch` the box itself.
    """
    part = box or Box(0, 0, width, height)
    if fit == "stretch" or round(part.width) == round(part.height):
        return box
    return square(part.center, (max if fit == "pad" else min)(part.width, part.height))


def _part(job: ClipJob, width: int, height: int) -> Box | None:
    """Return the part of width x height frames that becomes the square; None for all of it.

    Raises InputError if the record's box is outside the frame.
    """
    box, frame = job.record.box, job.record.box_frame
    if box is not None and frame is not None:
        box = box.scaled(width / frame[0], height / frame[1])
    if box is not None and not box.clipped(width, height).area > 0:
        raise InputError(f"the box {box} is outside the picture of {width}x{height}", "Check the data set's boxes.")
    return squared(box, width, height, job.options.fit)


def _strip(path: Path) -> list[Pixels] | None:
    """Return the frames of a picture that has square frames side by side, as in some published data sets; None for any
    other file."""
    still = stills.identify(path, strip=True) if path.is_file() else None
    if still is None or still.animated:
        return None
    count = count_frames(path)
    return read_frames(path, range(count)) if count > 1 else None


def _times(record: ClipRecord) -> tuple[Fraction, Fraction | None]:
    """Return start and end in seconds, SLACK early, so that rounding neither loses the first frame nor adds one at the
    end."""
    start, end = record.start or 0.0, record.end
    if not math.isfinite(start) or start < 0 or (end is not None and not start < end < math.inf):
        stop = "the end" if end is None else f"{end} s"
        raise InputError(f"invalid times: {start} s to {stop}", "The start must be 0 or more, and the end after it.")
    return max(Fraction(0), Fraction(start) - SLACK), None if end is None else Fraction(end) - SLACK


def _with_keypoints(reader: Reader, keypoints: KeypointRows, box: Box | None) -> Iterator[Frame]:
    """Yield the reader's frames and add their keypoints, whose index is derived from the frame's time."""
    for frame in reader:
        keypoints.add(
            round((reader.start + frame.time) * reader.info.rate), (reader.info.width, reader.info.height), box
        )
        yield frame


def _cut(job: ClipJob, pictures: Iterable[Pixels], rate: Fraction, keypoints: KeypointRows | None) -> Iterator[Frame]:
    """Yield pictures (H, W, 3) uint8 as frames of the clip, cut and resized like those of a file."""
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
    report: Progress,
    keypoints: KeypointRows | None,
    reader: Reader | None = None,
) -> WrittenClip:
    first = next(frames, None)
    if first is None:
        raise InputError("the clip has no frames", "Compare its times with the length of the raw file.")
    picture = job.options.format == "png"
    path = job.target / "%07d.png" if picture else job.target
    info = reader.info if reader else None
    tags = info.colour if info and not (info.hdr or info.colour.wide_gamut) else None
    sound, warnings = _sound(reader, first, path) if reader and job.options.audio and not picture else ((), [])
    side = job.options.size
    # One encoder thread: workers run in parallel, and the bytes are the same on every machine.
    with Writer(path, width=side, height=side, rate=rate, audio=sound, colour=tags, threads=1) as writer:
        for frame in chain((first,), frames):
            writer.write(frame.pixels, frame.time - first.time, frame.duration)
            report(writer.frames_written, None)
    warnings += [*(reader.warnings if reader else ()), *writer.warnings]
    points = None if keypoints is None else _write_points(job.target, keypoints)
    return WrittenClip(
        frames=writer.frames_written,
        rate=rate,
        measure=measure(job.target),
        warnings=tuple(warnings),
        keypoints=points,
    )


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
    """Choose the raw file's sound tracks from the first frame on; also return warnings."""
    info: VideoInfo = reader.info
    if not holds_audio(path):
        return (), []
    end = None if reader.end is None else info.origin + reader.end
    return choose_tracks(info, info.origin + reader.start + first.time, end)


Floats = NDArray[np.float64]


class KeypointRows:
    """Converts the true keypoints of a raw clip to those of the written frames."""

    def __init__(self, points: Floats, side: int) -> None:
        """points: (T, K, 2) in [-1, 1], for all frames of the raw clip.  side: of the square frames, in pixels."""
        self._points = points
        self._side = side
        self._rows: list[Floats] = []

    @classmethod
    def of(cls, record: ClipRecord, side: int) -> KeypointRows | None:
        """Read the keypoints of a record; return None if it has none. Raises InputError for invalid ones."""
        return None if record.keypoints is None else cls(checked(record.keypoints(), "keypoints"), side)

    def add(self, index: int, whole: tuple[int, int], part: Box | None) -> None:
        """Add the keypoints of the next written frame, NaN if the raw clip has none for it.

        index: of the frame in the raw clip.  whole: (width, height) of the raw picture.  part: the part of it that
        becomes the frame; None for all of it.
        """
        if index < len(self._points):
            self._rows.append(viewed(self._points[index], whole, part, self._side))
        else:
            self._rows.append(np.full(self._points.shape[1:], np.nan))

    def array(self) -> Floats:
        """Return the keypoints (T, K, 2) in [-1, 1] of the T added frames."""
        return np.stack(self._rows)


def viewed(points: Floats, whole: tuple[int, int], part: Box | None, side: int) -> Floats:
    """Convert points (..., 2) in a picture to the coordinates of a part of it, resized to `side` pixels.

    Coordinates are in [-1, 1] between the centres of the corner pixels; points outside the part become NaN.
    whole: (width, height) of the picture.  part: None for all of it.
    """
    box = part or Box(0, 0, *whole)
    # Resizing preserves the borders of pixels, not their centres.
    edges = (points + 1) / 2 * (np.array(whole) - 1) + 0.5
    pixels = (edges - (box.left, box.top)) * side / (box.width, box.height) - 0.5
    inner: Floats = 2 * pixels / (side - 1) - 1
    # Tolerates rounding, so that points on the border of an unchanged frame are kept.
    outside = (np.abs(inner) > 1 + 1e-9).any(-1, keepdims=True)
    return np.where(outside, np.nan, np.clip(inner, -1, 1))


def make_worker() -> Work[ClipJob, WrittenClip]:
    """Return the function that writes clips and hashes their raw files."""
    return _make_hashed


def _make_hashed(job: ClipJob, report: Progress) -> WrittenClip:
    source = None if job.record.path is None else InputFile.of(job.record.path)
    written = make_clip(job, report)
    return replace(written, source_sha256=None if source is None else source.sha256())
