"""Reading single frames of a clip by their number, decoding no more than the codec requires.

Clips are all that `fommctl.media.reader` reads, and pictures with the frames of a clip side by side, as in some
published data sets. Pixels equal the reader's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fommctl.errors import InputError
from fommctl.media import sequences, stills
from fommctl.media.conversion import Converter, View
from fommctl.media.decoding import Decoder, deinterlaced
from fommctl.media.files import check_file, demuxed, opened, pixel_aspect, seek, video_stream
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.resampling import Pixels, over_black, resize

_TIMED = frozenset({"mov", "matroska", "gif"})
"""Containers whose packets carry the time of display, one packet per frame."""
_SEEKABLE = frozenset({"mov", "matroska"})
_SKIPPING = frozenset({"h264", "hevc"})
"""Decoders that can skip, packet by packet, frames that no other frame references."""
_REMEMBERED = 4096
"""Clips whose frame times a process keeps in memory."""

Size = tuple[int, int] | None
Shaped = tuple[VideoFrame, Fraction]
"""A frame, and width over height of its pixels."""


def count_frames(path: Path, *, jpeg_strips: bool = False) -> int:
    """Return the exact number of frames of a video, an animation, a folder of frames, or a picture.

    A PNG whose width is a multiple (2 or more) of its height holds square frames side by side; any other picture is one
    frame, because a wide JPEG may be a panorama or two pages of a book. Raises InputError.

    jpeg_strips: treat JPEGs like PNGs, for pictures that are known to be clips.
    """
    return _clip(Path(path), jpeg_strips).count


def read_frames(path: Path, indices: Sequence[int], *, size: Size = None, jpeg_strips: bool = False) -> list[Pixels]:
    """Return the frames with these numbers (from 0, in any order, repeats allowed), each (H, W, 3) uint8 RGB.

    size: (width, height) of the result; nothing is resampled if the clip has this size, or for None.
    jpeg_strips: see `count_frames`. Raises InputError, also for numbers that the clip does not have.
    """
    path = Path(path)
    clip = _clip(path, jpeg_strips)
    wanted = sorted(set(indices))
    for index in wanted:
        if not 0 <= index < clip.count:
            raise _no_such_frame(path, index, clip.count)
    try:
        found = clip.read(wanted, size) if wanted else {}
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path.name} cannot be read: {error}", "Copy it again.") from error
    return [found[index] for index in indices]


class _Clip(Protocol):
    count: int

    def read(self, wanted: list[int], size: Size) -> dict[int, Pixels]:
        """Return the frames with these numbers, which are increasing and below `count`."""
        ...


def _clip(path: Path, jpeg_strips: bool) -> _Clip:
    if path.is_dir():
        return _Folder(path)
    check_file(path)
    status = path.stat()
    return _remembered(path, status.st_mtime_ns, status.st_size, ("PNG", "JPEG") if jpeg_strips else ("PNG",))


@lru_cache(maxsize=_REMEMBERED)
def _remembered(path: Path, modified: int, size: int, strips: tuple[str, ...]) -> _Clip:
    """Return the clip of a file, cached while size and time of modification stay the same.  strips: formats of pictures
    that may hold several frames."""
    still = stills.identify(path, strip=True)
    if still is not None and not still.animated:
        ratio, rest = divmod(still.width, still.height)
        return _Picture(path, ratio if still.format in strips and ratio > 1 and not rest else 1)
    info = probe(path)
    return _Animation(info) if info.video_codec in stills.ANIMATED_CODECS else _Video(info)


def _no_such_frame(path: Path, index: int, count: int) -> InputError:
    return InputError(
        f"{path.name} has {count} readable frames, and number {index} (from 0) was asked for",
        "Copy it again if it was cut short; prepare the data again if its manifest is older than the file.",
    )


class _Folder:
    """A folder of pictures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = [file for _, file in sequences.listed(path)]
        self.count = len(self.files)

    def read(self, wanted: list[int], size: Size) -> dict[int, Pixels]:
        info = probe(self.path)
        view = View((info.width, info.height), None, size)
        return {index: view.apply(over_black(*stills.decode(self.files[index]))) for index in wanted}


class _Picture:
    """A picture: one frame, or several square ones from left to right."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count

    def read(self, wanted: list[int], size: Size) -> dict[int, Pixels]:
        pixels = over_black(*stills.decode(self.path, strip=True))
        side = pixels.shape[1] // self.count
        parts = {index: np.ascontiguousarray(pixels[:, index * side : (index + 1) * side]) for index in wanted}
        return parts if size is None else {index: resize(part, size) for index, part in parts.items()}


class _Animation:
    """An animation that PIL can only read from its beginning."""

    def __init__(self, info: VideoInfo) -> None:
        self.path = info.path
        self.whole = (info.width, info.height)
        self.count = info.frames or 0

    def read(self, wanted: list[int], size: Size) -> dict[int, Pixels]:
        view = View(self.whole, None, size)
        found: dict[int, Pixels] = {}
        index = -1
        for index, (pixels, alpha, _) in enumerate(stills.animation(self.path)):
            if index == wanted[len(found)]:
                found[index] = view.apply(over_black(pixels, alpha))
                if len(found) == len(wanted):
                    return found
        raise _no_such_frame(self.path, wanted[len(found)], index + 1)


@dataclass(frozen=True)
class _Times:
    """Display times in ticks of the stream, increasing: of all frames, and of key frames."""

    frames: NDArray[np.int64]
    keys: NDArray[np.int64]
    seeks: NDArray[np.int64]
    """The time to pass to the container to seek to each key frame."""


class _Video:
    """A video file: frames are found by their times, or by counting if the times are not reliable."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.times = _frame_times(info)
        if self.times is not None:
            self.count = len(self.times.frames)
        else:
            with _reading(info.path) as (container, stream):
                self.count = sum(1 for _ in Decoder(container, stream).frames())

    def read(self, wanted: list[int], size: Size) -> dict[int, Pixels]:
        info = self.info
        convert = Converter(View((info.width, info.height), None, size), info.orientation, info.colour, info.peak)
        found: dict[int, Pixels] = {}
        if self.times is not None and info.parity is None:
            for index, frame in zip(wanted, self._by_time(wanted, self.times), strict=False):
                found[index] = convert(*frame)
        if len(found) < len(wanted):
            found = {index: convert(*frame) for index, frame in self._by_counting(wanted)}
        return found

    def _by_counting(self, wanted: list[int]) -> Iterator[tuple[int, Shaped]]:
        left = set(wanted)
        index = -1
        with _reading(self.info.path) as (container, stream):
            info = self.info
            frames = deinterlaced(Decoder(container, stream).frames(), info.deinterlace, info.parity, 1 / info.rate)
            for index, (frame, _, aspect) in enumerate(frames):
                if index in left:
                    yield index, (frame, aspect)
                if index == wanted[-1]:
                    return
        raise _no_such_frame(self.info.path, wanted[-1], index + 1)

    def _by_time(self, wanted: list[int], times: _Times) -> Iterator[Shaped]:
        """Yield the wanted frames in order; ends early if the file does not decode as its packets suggest."""
        targets = times.frames[wanted]
        starts = np.searchsorted(times.keys, targets, side="right") - 1
        with _reading(self.info.path) as (container, stream):
            for start in np.unique(starts).tolist():
                group = targets[starts == start].tolist()
                if start > 0 and not seek(container, stream, int(times.seeks[start])):
                    return
                complete = yield from _decoded(container, stream, group, int(times.keys[start]))
                if not complete:
                    return


@contextmanager
def _reading(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container and its picture stream, with one decoding thread: training reads many clips in parallel."""
    with opened(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        yield container, stream


def _decoded(
    container: InputContainer, stream: VideoStream, targets: list[int], start: int
) -> Generator[Shaped, None, bool]:
    """Yield the frames at these times, from the container's position on; returns whether all were found.

    start: time of the key frame at this position; frames shown before it cannot be decoded completely.
    """
    context = stream.codec_context
    position = 0
    try:
        for packet in demuxed(container, stream):
            if context.name in _SKIPPING:
                context.skip_frame = "DEFAULT" if packet.pts in targets else "NONREF"
            frames: list[Any] = context.decode(packet)
            for frame in frames:
                if frame.interlaced_frame:
                    # Deinterlacing needs the frames around it.
                    return False
                if frame.pts is None or frame.pts > targets[position] or (frame.is_corrupt and frame.pts >= start):
                    return False
                if frame.pts == targets[position]:
                    yield frame, pixel_aspect(stream)
                    position += 1
                    if position == len(targets):
                        return True
    except (FFmpegError, ValueError, OSError):
        return False
    return False


def _frame_times(info: VideoInfo) -> _Times | None:
    """Return frame times from the packets, without decoding; None if packets do not determine the frames."""
    if info.container not in _TIMED:
        return None
    shown: list[int] = []
    keys: list[tuple[int, int]] = []
    with _reading(info.path) as (container, stream):
        try:
            for packet in demuxed(container, stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or not (keys or packet.is_keyframe):
                    return None
                if packet.is_keyframe:
                    # MOV and MP4 seek by decoding time, Matroska by display time.
                    decoded = packet.pts if packet.dts is None else packet.dts
                    keys.append((packet.pts, decoded if info.container == "mov" else packet.pts))
                if not packet.is_discard:
                    shown.append(packet.pts)
        except (FFmpegError, OSError):
            return None
    frames = np.unique(np.array(shown, np.int64))
    # With two frames at one time, or frames before the first key frame, only decoding tells which are shown.
    if not keys or len(frames) < max(1, len(shown)) or frames[0] < keys[0][0]:
        return None
    starts = np.array(sorted(keys) if info.container in _SEEKABLE else keys[:1], np.int64)
    return _Times(frames, starts[:, 0], starts[:, 1])
