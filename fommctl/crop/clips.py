"""Crops one source: searches it, and writes its clips in one pass, or returns the ffmpeg commands for them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fommctl.api.protocols import Detector
from fommctl.crop.config import CropConfig
from fommctl.crop.manifest import Row
from fommctl.crop.search import Piece, pieces_of_picture, pieces_of_video
from fommctl.errors import FommctlError, InputError
from fommctl.files import HeldFolder, temporary_path
from fommctl.host import load_host
from fommctl.media import sequences
from fommctl.media.boxes import Box
from fommctl.media.containers import CONTAINERS, resolve_encoding
from fommctl.media.conversion import View
from fommctl.media.images import read_picture
from fommctl.media.images_out import write_png
from fommctl.media.movie import output_errors
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.reader import Reader
from fommctl.media.resampling import Pixels, over_black, resize
from fommctl.media.sound import AudioSource, choose_tracks
from fommctl.media.sources import Pending
from fommctl.media.writer import Writer
from fommctl.presets.sections import Framing
from fommctl.workers import Progress

ENLARGED = 1.5
"""Factor of enlargement from which on the user is warned."""
COMMON_RATES = tuple(
    Fraction(rate)
    for rate in ("5", "8", "10", "12", "25/2", "15", "24000/1001", "24", "25", "30000/1001", "30", "48", "50",
                 "60000/1001", "60", "90", "100", "120000/1001", "120", "240")
)  # fmt: skip
_TONEMAP = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv"
_GAMUT = "zscale=p=bt709:t=bt709:m=bt709:r=tv"
"""The ffmpeg filters nearest to the reader's conversions of HDR and wide gamut."""


@dataclass(frozen=True, slots=True)
class Job:
    """One source to crop."""

    source: Path
    name: str
    """Name of its clips, before `#`."""
    key: str
    """Key of the source (see `key_of`)."""


@dataclass(frozen=True, slots=True)
class CroppedSource:
    """The clips of one source."""

    rows: tuple[Row, ...] = ()
    """Clips, as rows of the manifest."""
    commands: tuple[str, ...] = ()
    """In a dry run, the ffmpeg command of each clip."""
    warnings: tuple[str, ...] = ()
    faces: tuple[int | None, ...] = ()
    """In a dry run, the number of each clip's subject (see `Piece.face`)."""


def make_worker(
    config: CropConfig, detector: str, framing: Framing | None, given: Detector | None = None
) -> Callable[[Job, Progress], CroppedSource]:
    """Return the function that does jobs.

    detector: name of the detector.  given: the built detector; None: it is built here, in the worker process.
    """
    built: Detector = load_host().find("detector", detector).build() if given is None else given

    def work(job: Job, report: Progress) -> CroppedSource:
        return crop_file(job, config, (detector, built), framing, report)

    return work


def crop_file(
    job: Job, config: CropConfig, detector: tuple[str, Detector], framing: Framing | None, report: Progress
) -> CroppedSource:
    """Write the clips of one source; in a dry run, only find them.

    detector: name and detector.  Raises FommctlError; then clips of an earlier run are unchanged.
    """
    unfinished: dict[Path, Path] = {}
    folder = None if config.output is None or config.dry_run else HeldFolder(config.output)
    try:
        return _crop(job, config, detector, framing, report, unfinished)
    except FommctlError as error:
        for target, temporary in unfinished.items():
            error.message = error.message.replace(str(temporary), str(target))
        raise
    finally:
        if folder is not None:
            for temporary in unfinished.values():
                folder.remove(temporary.name)
            folder.close()


def _crop(
    job: Job,
    config: CropConfig,
    detector: tuple[str, Detector],
    framing: Framing | None,
    report: Progress,
    unfinished: dict[Path, Path],
) -> CroppedSource:
    """Write the clips of a source.  unfinished: receives the temporary file of each clip, by target."""
    info = probe(job.source, fps=config.fps, deinterlace=config.deinterlace)
    pixels = None
    if info.kind == "image":
        picture = read_picture(job.source)
        pixels = over_black(picture.pixels, picture.alpha)
        found = pieces_of_picture(pixels, config, detector[1], framing)
    else:
        found = pieces_of_video(info, config, detector[1], framing, report)
    pieces = [piece for piece in found if piece.box.width >= config.min_size]
    warnings = _size_warnings(job, found, pieces, config)
    folder, suffix = config.output or Path(), ".mp4" if pixels is None else ".png"
    targets = [folder / f"{job.name}#track{number}{suffix}" for number in range(len(pieces))]
    frames, commands = [piece.frames for piece in pieces], []
    if config.dry_run:
        commands = [ffmpeg_command(info, *each, config) for each in zip(pieces, targets, strict=True)]
    else:
        unfinished.update({target: temporary_path(target) for target in targets})
        files = list(unfinished.values())
        if pixels is None:
            frames, notes = write_clips(info, pieces, files, config, report)
            warnings += [note for note in notes if note not in warnings]
        else:
            for piece, file in zip(pieces, files, strict=True):
                write_still(pixels, piece, file, config)
        # Clips of an earlier run are replaced only when all new ones are complete.
        for target, file in unfinished.items():
            with output_errors(target):
                os.replace(file, target)
    rows = [_row(info, *each, config, detector[0]) for each in zip(pieces, targets, frames, strict=True)]
    faces = tuple(piece.face for piece in pieces) if config.dry_run else ()
    return CroppedSource(tuple(rows), tuple(commands), tuple(warnings), faces)


def _size_warnings(job: Job, found: Sequence[Piece], kept: Sequence[Piece], config: CropConfig) -> list[str]:
    """Return warnings about subjects that were skipped as too small, or are much enlarged."""
    warnings = []
    if skipped := len(found) - len(kept):
        counted = f"{skipped} subject{'' if skipped == 1 else 's'}"
        warnings.append(f"{job.source}: skipped {counted} smaller than --min-size {config.min_size}")
    for number, piece in enumerate(kept):
        if piece.box.width * ENLARGED <= config.size:
            sizes = f"from {piece.box.width:g} to {config.size} pixels"
            warnings.append(f"{job.source}: track{number} is enlarged {sizes}; --min-size skips small subjects")
    return warnings


def nominal_rate(info: VideoInfo, config: CropConfig) -> Fraction:
    """Return the frame rate of the clips: the source's, at most `--max-fps`; an odd average becomes the nearest common
    rate."""
    rate = info.rate
    if rate.denominator not in (1, 2, 1001):
        rate = min(COMMON_RATES, key=lambda common: max(common, rate) / min(common, rate))
    return rate if config.max_fps is None else min(rate, config.max_fps)


def _row(info: VideoInfo, piece: Piece, target: Path, frames: int, config: CropConfig, detector: str) -> Row:
    box, rate = piece.box, nominal_rate(info, config)
    return {
        "source": os.fspath(info.path),
        "output": target.name,
        "start": float(piece.start),
        "end": float(piece.end),
        "box": [round(side) for side in box.sides],
        "size": config.size,
        "detector": detector,
        "score": round(piece.score, 4),
        "frames": frames,
        "fps": None if info.kind == "image" else f"{rate.numerator}/{rate.denominator}",
    }


def write_clips(
    info: VideoInfo, pieces: Sequence[Piece], targets: Sequence[Path], config: CropConfig, report: Progress
) -> tuple[list[int], list[str]]:
    """Write the squares of all pieces with their sound; return the number of frames of each, and warnings.

    Frames of pieces that overlap in time are decoded once. Timestamps are the source's, shifted to begin at 0.
    Raises InputError if a piece has no readable frame, and OutputError; then nothing is left at the targets.
    """
    # Several clips are encoded in parallel anyway.
    threads = 0 if len(pieces) == 1 else 1
    clips = [_Clip(info, *each, config, threads=threads) for each in zip(pieces, targets, strict=True)]
    warnings: list[str] = []
    for group in _overlapping(clips):
        start, end = min(clip.piece.start for clip in group), max(clip.piece.end for clip in group)
        with (
            ExitStack() as opened,
            Reader(
                info.path,
                fps=config.fps,
                start=start,
                end=end,
                max_rate=config.max_fps,
                deinterlace=config.deinterlace,
            ) as reader,
        ):
            for clip in group:
                opened.enter_context(clip.opened)
            views = [reader.view(clip.piece.box, (config.size, config.size)) for clip in group]
            for number, frame in enumerate(reader.decoded()):
                time = start + frame.time
                for clip, view in zip(group, views, strict=True):
                    clip.take(frame, time, view)
                report(number + 1, None)
        if any(not clip.frames for clip in group):
            raise InputError(f"{info.path.name} has no readable frames in a part where a subject was found")
        warnings += reader.warnings
    for clip in clips:
        warnings += clip.warnings
    return [clip.frames for clip in clips], list(dict.fromkeys(warnings))


def _overlapping(clips: Sequence[_Clip]) -> list[list[_Clip]]:
    """Group clips that overlap or adjoin each other in time."""
    groups: list[list[_Clip]] = []
    end = Fraction(-1)
    for clip in sorted(clips, key=lambda clip: clip.piece.start):
        if clip.piece.start <= end:
            groups[-1].append(clip)
        else:
            groups.append([clip])
        end = max(end, clip.piece.end)
    return groups


class _Clip:
    """Writes one clip from the frames of its source."""

    def __init__(self, info: VideoInfo, piece: Piece, target: Path, config: CropConfig, *, threads: int) -> None:
        """threads: of the encoder; 0 for its default."""
        self._threads = threads
        self.piece = piece
        self.frames = 0
        self.warnings: list[str] = []
        self.opened = ExitStack()
        self._info = info
        self._target = target
        self._config = config
        self._writer: Writer | None = None
        self._start = piece.start
        """Time of the first frame, which `--max-fps` may delay."""
        self._step = 1 / config.max_fps if config.max_fps is not None and config.max_fps < info.rate else None
        """Seconds between frames if `--max-fps` reduces the rate, else None."""
        self._slot = -1
        """Time of the last frame in these steps."""

    def take(self, frame: Pending, time: Fraction, view: View) -> None:
        """Write the view of a frame if its time is in the clip; finish the clip at the first frame after it."""
        if time >= self.piece.end:
            # Encoders are closed early, so that no more are open than clips overlap.
            self.opened.close()
        elif time >= self.piece.start:
            picture = frame.picture(view)
            if picture is not None:
                writer = self._writer or self._open(time)
                since, step = time - self._start, self._step
                duration = min(frame.duration, max(self.piece.end - time, 1 / self._info.rate))
                if step is None:
                    writer.write(picture.pixels, since, duration)
                else:
                    # Frames selected from a higher rate have uneven times, but players expect an even rate.
                    self._slot = max(self._slot + 1, round(since / step))
                    writer.write(picture.pixels, self._slot * step, max(duration, step))
                self.frames = writer.frames_written

    def _open(self, time: Fraction) -> Writer:
        info, config = self._info, self._config
        self._start = time
        sound, self.warnings = sound_of(info, time, self.piece.end, config)
        writer = Writer(
            self._target,
            width=config.size,
            height=config.size,
            rate=nominal_rate(info, config),
            audio=sound,
            # Frames of HDR and wide-gamut clips have been converted to bt709: the source's tags would be wrong.
            colour=None if info.hdr or info.colour.wide_gamut else info.colour,
            codec=config.codec,
            crf=config.crf,
            pix_fmt=config.pix_fmt,
            overwrite=True,
            threads=self._threads,
        )
        self._writer = self.opened.enter_context(writer)
        self.opened.callback(lambda: self.warnings.extend(writer.warnings))
        return writer


def write_still(pixels: Pixels, piece: Piece, target: Path, config: CropConfig) -> None:
    """Write the square of a picture (H, W, 3) as PNG. Raises OutputError."""
    write_png(target, resize(pixels, (config.size, config.size), piece.box))


def sound_of(
    info: VideoInfo, start: Fraction, end: Fraction, config: CropConfig
) -> tuple[tuple[AudioSource, ...], list[str]]:
    """Choose the sound tracks for a part of the source, unless `--audio none`; also return warnings.

    start, end: seconds since the source's first frame.
    """
    if config.audio == "none":
        return (), []
    return choose_tracks(info, info.origin + start, info.origin + end)


def ffmpeg_command(info: VideoInfo, piece: Piece, target: Path, config: CropConfig) -> str:
    """Return an ffmpeg command, quoted for a POSIX shell, that cuts a piece as `write_clips` and `write_still` do."""
    words = ["ffmpeg", *_input(info, piece), "-vf", ",".join(_filters(info, piece.box, config))]
    if info.kind == "image":
        return shlex.join([*words, "-frames:v", "1", _file(target)])
    encoding = resolve_encoding(target, codec=config.codec, crf=config.crf, pix_fmt=config.pix_fmt)
    words += ["-fps_mode", "passthrough", "-c:v", encoding.encoder.name, "-pix_fmt", encoding.pix_fmt]
    words += [word for name, value in encoding.options.items() for word in (f"-{name}", value)]
    for sound in sound_of(info, piece.start, piece.end, config)[0]:
        if sound.right is not None:
            joined = f"[0:{sound.track}][0:{sound.right}]join=inputs=2:channel_layout=stereo[sound]"
            words += ["-filter_complex", joined, "-map", "0:V:0", "-map", "[sound]", "-c:a", "aac"]
        else:
            codec = next(track.codec for track in info.audio if track.index == sound.track)
            copied = codec in (CONTAINERS[target.suffix].sound or ())
            words += ["-map", "0:V:0", "-map", f"0:{sound.track}", "-c:a", "copy" if copied else "aac"]
    return shlex.join([*words, "-movflags", "+faststart", _file(target)])


def _input(info: VideoInfo, piece: Piece) -> list[str]:
    if info.kind == "image":
        return ["-i", _file(info.path)]
    if info.kind == "sequence":
        times = ["-ss", _seconds(piece.start), "-to", _seconds(piece.end)]
        first = _first_number(info.path)
        return ["-framerate", str(info.rate), "-start_number", first, *times, "-i", _file(info.path)]
    # Without -seek_timestamp ffmpeg counts from the earliest stream, which may be the sound, not from the file's zero.
    times = ["-ss", _seconds(info.origin + piece.start), "-to", _seconds(info.origin + piece.end)]
    return ["-seek_timestamp", "1", *times, "-i", _file(info.path)]


def _first_number(pattern: Path) -> str:
    _, first = sequences.listed(pattern)[0]
    before = pattern.name.partition("%")[0]
    digits = first.name[len(before) :]
    return str(int(digits[: len(digits) - len(digits.lstrip("0123456789"))]))


def _filters(info: VideoInfo, box: Box, config: CropConfig) -> list[str]:
    """Return the ffmpeg filters: deinterlacing, square pixels, repeated borders, crop, scale, frame rate and bt709."""
    filters = []
    if info.parity is not None and info.deinterlace != "off":
        sent = "send_field" if info.deinterlace == "field" else "send_frame"
        which = "interlaced" if info.parity == "auto" else "all"
        filters.append(f"bwdif=mode={sent}:parity={info.parity}:deint={which}")
    filters += [f"scale={info.width}:{info.height}", "setsar=1"] if info.sample_aspect != 1 else []
    left, top, width, height = (round(value) for value in (box.left, box.top, box.width, box.height))
    before_x, before_y = max(0, -left), max(0, -top)
    after_x, after_y = max(0, left + width - info.width), max(0, top + height - info.height)
    if before_x or before_y or after_x or after_y:
        whole = info.width + before_x + after_x, info.height + before_y + after_y
        borders = f"left={before_x}:right={after_x}:top={before_y}:bottom={after_y}"
        filters += [f"pad={whole[0]}:{whole[1]}:{before_x}:{before_y}", f"fillborders={borders}:mode=smear"]
    filters += [f"crop={width}:{height}:{left + before_x}:{top + before_y}:exact=1"]
    filters += [f"scale={config.size}:{config.size}:flags=bicubic"]
    if config.max_fps is not None and config.max_fps < info.rate:
        filters += [f"fps={config.max_fps}"]
    return [*filters, _TONEMAP if info.hdr else _GAMUT] if info.hdr or info.colour.wide_gamut else filters


def _seconds(time: Fraction) -> str:
    """Format a time with microseconds, rounded down: rounded up, a frame's own time would exclude the frame."""
    microseconds = int(time * 1_000_000 // 1)
    sign, microseconds = ("-" if microseconds < 0 else ""), abs(microseconds)
    return f"{sign}{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _file(path: Path) -> str:
    """Return a path that ffmpeg mistakes neither for an option nor for an address."""
    return f"file:{path}" if ":" in str(path) or str(path).startswith("-") else str(path)
