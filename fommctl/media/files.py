"""Opening video files: one place for PyAV's errors, its optional numbers, and the choice of the picture stream."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fommctl.errors import InputError, first_line, out_of_memory
from fommctl.files import not_there
from fommctl.media.limits import MAX_PIXELS, check_size
from fommctl.media.stills import check_format

T = TypeVar("T")
DEFAULT_RATE = Fraction(25)
_MAX_RATE = 1000
_MAX_ASPECT = 16
_SAME_LENGTH = Fraction(1, 5)
"""Seconds."""
_BROADCAST = frozenset({"mpegts", "mpeg"})
_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})
"""Decoders that draw any text file as a picture."""
_NO_FILM = Disposition.attached_pic | Disposition.dependent | Disposition.still_image
_PLAYLISTS = frozenset({"hls", "concat", "dash", "imf"})
"""Formats that only name other files."""


def as_fraction(number: Any) -> Fraction | None:
    """Convert a rate or time base of PyAV to a Fraction; None if it is unset, which PyAV may give as None or as 0."""
    if not number:
        return None
    return Fraction(number.numerator, number.denominator)


def check_file(path: Path) -> None:
    """Raise InputError unless `path` is a readable file that is not empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_there(path) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.name} cannot be read: {_reason(error)}", "Check the name and the permissions."
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not a file", "Name a picture or a video in it.")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file", "Copy it to a file first.")
    if status.st_size == 0:
        raise InputError(f"{path.name} is empty", "Copy or download it again.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {_reason(error)}", "Check its permissions.") from error


def open_container(path: Path) -> InputContainer:
    """Open a container for reading. Raises PyAV's FFmpegError, OSError and ValueError.

    The name is never taken for a URL (`a:b.mp4`), no other file is read, and metadata need not be UTF-8.
    """
    return av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})


def demuxed(container: InputContainer, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream, and an empty one at the end, which flushes its decoder."""
    try:
        yield from container.demux(stream)
    except IndexError:
        # A broadcast may gain streams on the way: after our empty packet, PyAV tries to flush theirs, which it does not
        # know.
        return


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a container for reading. Raises InputError, also for playlists; network addresses are never followed."""
    check_file(path)
    check_format(path)
    try:
        container = open_container(path)
    except (FFmpegError, ValueError, OSError) as error:
        if known := out_of_memory(error):
            raise known from error
        raise InputError(
            f"{path.name} is not a readable video or picture: {_reason(error)}",
            "Check that it plays elsewhere and was copied whole.",
        ) from error
    with container:
        if container.format.name in _PLAYLISTS:
            raise InputError(f"{path.name} is a playlist, not a video", "Name the video itself.")
        yield container


def pulled(pull: Callable[[], T]) -> Iterator[T]:
    """Yield the frames that a filter graph has ready.  pull: its `pull` or `vpull`."""
    while True:
        try:
            frame = pull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield frame


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the stream with the moving picture, set up to decode on several threads. Raises InputError.

    Of several streams the longest is chosen, because one may be a still picture; of equally long ones the default.
    A cover picture in a sound file is not a video, nor is a part of a still.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _NO_FILM]
    if not container.streams:
        raise InputError(f"{path.name} is incomplete: it contains no streams", "Copy or export it again.")
    if not streams:
        kind = "holds sound and no video" if container.streams.audio else "holds no video"
        raise InputError(f"{path.name} {kind}", "Give a file with video.")
    # A truncated AVIF animation has its first picture as a stream of its own, with the duration of the whole.
    stream = _longest([each for each in streams if each.frames != 1] or streams)
    context = stream.codec_context
    if context is None or context.name in _TEXT_CODECS:
        what = "is text" if context is not None else "has a video codec that cannot be decoded here"
        raise InputError(f"{path.name} {what}", "Convert it to H.264 in an MP4 file first.")
    check_size(path.name, context.width, context.height)
    # Frames may be larger than the container states: let the decoder refuse those.
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


def _longest(streams: list[VideoStream]) -> VideoStream:
    if len(streams) == 1:
        return streams[0]
    default = next((one for one in streams if one.disposition & Disposition.default), streams[0])
    least = _length(default)
    if least is None:
        return default
    longest = max(streams, key=lambda one: _length(one) or 0)
    # Tracks of one recording differ by a frame or two.
    return longest if (_length(longest) or 0) > least + max(_SAME_LENGTH, least / 20) else default


def _length(stream: VideoStream) -> Fraction | None:
    """Return the duration of a stream in seconds, as its header states it."""
    if (stated := stated_end(stream)) is not None:
        return stated
    if stream.duration:
        return stream.duration * time_base(stream)
    return stream.frames / nominal_rate(stream) if stream.frames else None


def stated_end(stream: VideoStream) -> Fraction | None:
    """Return the end of a stream, in seconds of the file, from its tag (Matroska); None if it has none."""
    try:
        hours, minutes, seconds = (lookup(stream.metadata, "duration") or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None


def lookup(metadata: Mapping[str, str], key: str) -> str | None:
    """Return a value of metadata by its key in lower case, whatever the case in the file."""
    return next((value for name, value in metadata.items() if name.lower() == key), None)


def seek(container: InputContainer, stream: VideoStream, ticks: int) -> bool:
    """Seek to a key frame at or before a time of the stream; return whether that worked."""
    try:
        container.seek(ticks, stream=stream)
    except (FFmpegError, OSError):
        return False
    return True


def nominal_rate(stream: VideoStream) -> Fraction:
    """Return the frame rate, the average if it varies; 25 if the file states nothing sensible."""
    for candidate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        rate = as_fraction(candidate)
        if rate is not None and 0 < rate <= _MAX_RATE:
            return rate
    return DEFAULT_RATE


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Return width over height of a pixel of the frame decoded last; 1 if nothing sensible is stated.

    In a broadcast it may change on the way, and only the codec states it; other containers state it for the whole
    stream.
    """
    coded = stream.codec_context.sample_aspect_ratio if stream.container.format.name in _BROADCAST else None
    aspect = as_fraction(coded or stream.sample_aspect_ratio)
    return aspect if aspect is not None and Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT else Fraction(1)


def time_base(stream: VideoStream) -> Fraction:
    """Return the unit of the stream's timestamps, in seconds."""
    return as_fraction(stream.time_base) or Fraction(1, 90000)


def side_data(frame: VideoFrame) -> dict[Type, bytes]:
    """Return the side data of a frame: display matrix, light levels, ..., as ffmpeg's structures."""
    try:
        entries: Any = frame.side_data
    except ValueError:
        # PyAV returns none of them if one is of a kind that it does not know, such as EXIF.
        return {}
    return {entry.type: bytes(entry) for entry in entries}


def _reason(error: Exception) -> str:
    text = first_line(error)
    return text[:1].lower() + text[1:]
