"""Cutting clips out of a source, one pass each, and the ffmpeg commands that would do the same."""

from __future__ import annotations

import shlex
from fractions import Fraction
from pathlib import Path

from fommctl.crop.config import CropConfig
from fommctl.crop.search import Piece, Tell
from fommctl.media import sequences
from fommctl.media.boxes import Box
from fommctl.media.containers import CONTAINERS, resolve_encoding
from fommctl.media.images import Pixels, resize
from fommctl.media.images_out import write_png
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Reader
from fommctl.media.sound import choose_tracks
from fommctl.media.writer import AudioSource, Writer


def write_clip(info: VideoInfo, piece: Piece, target: Path, config: CropConfig, tell: Tell) -> tuple[int, list[str]]:
    """Write the square of a piece, with its sound; returns the number of frames, and warnings.

    Timestamps are those of the source, from 0 on. Raises OutputError; whatever is raised, nothing is left at `target`.
    """
    sound, warnings = sound_of(info, piece, config)
    size = (config.size, config.size)
    with (
        Reader(
            info.path,
            fps=config.fps,
            start=piece.start,
            end=piece.end,
            box=piece.box,
            size=size,
            deinterlace=config.deinterlace,
        ) as reader,
        Writer(
            target,
            width=config.size,
            height=config.size,
            rate=info.rate,
            audio=sound,
            # Frames of HDR and wide-gamut clips arrive as bt709: their own tags would be wrong.
            colour=None if info.hdr or info.colour.wide_gamut else info.colour,
            codec=config.codec,
            crf=config.crf,
            pix_fmt=config.pix_fmt,
            overwrite=True,
        ) as writer,
    ):
        for frame in reader:
            writer.write(frame.pixels, frame.time, frame.duration)
            tell(writer.frames_written, piece.frames)
    return writer.frames_written, [*warnings, *reader.warnings, *writer.warnings]


def write_still(pixels: Pixels, piece: Piece, target: Path, config: CropConfig) -> None:
    """Write the square of a picture (H, W, 3) as PNG. Raises OutputError."""
    write_png(target, resize(pixels, (config.size, config.size), piece.box))


def sound_of(info: VideoInfo, piece: Piece, config: CropConfig) -> tuple[tuple[AudioSource, ...], list[str]]:
    """The sound of the piece unless none is wanted, and what should be said about it."""
    if config.audio == "none":
        return (), []
    return choose_tracks(info, info.origin + piece.start, info.origin + piece.end)


def ffmpeg_command(info: VideoInfo, piece: Piece, target: Path, config: CropConfig) -> str:
    """A command line, quoted for a POSIX shell, that cuts this piece as `write_clip` or `write_still` does."""
    words = ["ffmpeg", *_input(info, piece), "-vf", ",".join(_filters(info, piece.box, config.size))]
    if info.kind == "image":
        return shlex.join([*words, "-frames:v", "1", _file(target)])
    encoding = resolve_encoding(target, codec=config.codec, crf=config.crf, pix_fmt=config.pix_fmt)
    words += ["-fps_mode", "passthrough", "-c:v", encoding.encoder.name, "-pix_fmt", encoding.pix_fmt]
    words += [word for name, value in encoding.options.items() for word in (f"-{name}", value)]
    for sound in sound_of(info, piece, config)[0]:
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
    # Times of the file itself: without -seek_timestamp ffmpeg counts from its earliest stream, which may be the sound.
    times = ["-ss", _seconds(info.origin + piece.start), "-to", _seconds(info.origin + piece.end)]
    return ["-seek_timestamp", "1", *times, "-i", _file(info.path)]


def _first_number(pattern: Path) -> str:
    _, first = sequences.listed(pattern)[0]
    before = pattern.name.partition("%")[0]
    digits = first.name[len(before) :]
    return str(int(digits[: len(digits) - len(digits.lstrip("0123456789"))]))


def _filters(info: VideoInfo, box: Box, size: int) -> list[str]:
    """Square pixels, border repeated where the square leaves the picture, the square, its final size."""
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
    return [*filters, f"scale={size}:{size}:flags=bicubic"]


def _seconds(time: Fraction) -> str:
    """Rounded down to the microsecond: rounded up, a frame's own time would exclude it."""
    microseconds = int(time * 1_000_000 // 1)
    sign, microseconds = ("-" if microseconds < 0 else ""), abs(microseconds)
    return f"{sign}{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _file(path: Path) -> str:
    """A name that ffmpeg takes for no option and no address."""
    return f"file:{path}" if ":" in str(path) or str(path).startswith("-") else str(path)
