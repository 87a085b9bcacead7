"""Single frames of a clip by their number: only what is wanted is decoded, and no more than the codec forces.

Clips are all that `fommctl.media.reader` reads, and pictures that hold the frames of a clip side by side, as the
published data sets have them. Pixels are those of the reader, bit for bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fommctl.errors import InputError
from fommctl.media import sequences, stills
from fommctl.media.conversion import Converter, View
from fommctl.media.decoding import Decoder
from fommctl.media.files import opened, video_stream
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.resampling import Pixels, over_black, resize

_TIMED = frozenset({"mov", "matroska", "gif"})
"""Containers whose packets carry the times of display, one packet a frame."""
_SEEKABLE = frozenset({"mov", "matroska"})
_REMEMBERED = 4096
"""Clips whose frame times a process keeps in memory."""


def count_frames(path: Path) -> int:
    """Exact number of frames: of a video, an animation, a folder of frames, or a picture.

    A picture whose width is a multiple of its height, and more than that, holds square frames side by side; every
    other picture is one frame. Raises InputError.
    """
    path = Path(path)
    if path.is_dir():
        return len(sequences.listed(path))
    return len(_clip(path))


def read_frames(path: Path, indices: Sequence[int], *, size: tuple[int, int] | None = None) -> list[Pixels]:
    """The frames with these numbers (from 0, in any order), each (H, W, 3) uint8 RGB with memory of its own.

    size: (width, height) of the result; the clip's own where None, and then nothing is resampled. Raises InputError,
    also where the clip has no frame of that number.
    """
    path = Path(path)
    clip = _Folder(path) if path.is_dir() else _clip(path)
    wanted = sorted(set(indices))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(clip):
        missing = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise _no_such_frame(path, missing, len(clip))
    found = clip.read(wanted, size)
    return [found[index].copy() if indices.count(index) > 1 else found[index] for index in indices]


def _no_such_frame(path: Path, index: int, count: int) -> InputError:
    return InputError(
        f"{path.name} has {count} readable frames, and number {index} was asked for",
        "Copy it again if it was cut short; prepare the data again if the manifest is older than the file.",
    )


Clip = Any


def _clip(path: Path) -> Clip:
    try:
        status = path.stat()
    except OSError:
        return _open_clip(path)
    return _remembered(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(path: Path, modified: int, size: int) -> Clip:
    return _open_clip(path)


def _open_clip(path: Path) -> Clip:
    info = probe(path)
    if info.kind == "image":
        return _Strip(info)
    if info.video_codec in stills.ANIMATED_CODECS:
        return _Animation(info)
    return _Video(info)


class _Folder:
    """A folder of pictures."""

    def __init__(self, path: Path) -> None:
        self.info = probe(path)
        self.files = [file for _, file in sequences.listed(path)]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, wanted: list[int], size: tuple[int, int] | None) -> dict[int, Pixels]:
        view = View((self.info.width, self.info.height), None, size)
        return {index: view.apply(over_black(*stills.decode(self.files[index]))) for index in wanted}


class _Strip:
    """A picture of one frame, or of several square ones from left to right."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        ratio, rest = divmod(info.width, info.height)
        self.frames = ratio if rest == 0 and ratio > 1 else 1

    def __len__(self) -> int:
        return self.frames

    def read(self, wanted: list[int], size: tuple[int, int] | None) -> dict[int, Pixels]:
        pixels = over_black(*stills.decode(self.info.path))
        side = pixels.shape[1] // self.frames
        parts = {index: np.ascontiguousarray(pixels[:, index * side : (index + 1) * side]) for index in wanted}
        return parts if size is None else {index: resize(part, size) for index, part in parts.items()}


class _Animation:
    """An animation that PIL reads from its beginning."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info

    def __len__(self) -> int:
        return self.info.frames or 0

    def read(self, wanted: list[int], size: tuple[int, int] | None) -> dict[int, Pixels]:
        view = View((self.info.width, self.info.height), None, size)
        found = {}
        for index, (pixels, alpha, _) in enumerate(stills.animation(self.info.path)):
            if index in wanted:
                found[index] = view.apply(over_black(pixels, alpha))
            if index == wanted[-1]:
                break
        return found


@dataclass(frozen=True)
class _Times:
    """Times of display in ticks of the stream: of all frames, and of those at which decoding can begin."""

    frames: NDArray[np.int64]
    keys: NDArray[np.int64]
    seeks: NDArray[np.int64]
    """For each key frame, the time that makes the container seek to it."""


class _Video:
    """A video file. Frames are found by their times, and by counting where the times are not to be relied on."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.times = _frame_times(info)
        self.count = self._counted() if self.times is None else len(self.times.frames)

    def __len__(self) -> int:
        return self.count

    def read(self, wanted: list[int], size: tuple[int, int] | None) -> dict[int, Pixels]:
        convert = Converter(
            View((self.info.width, self.info.height), None, size),
            self.info.orientation,
            self.info.colour,
            self.info.peak,
        )
        found = None
        if self.times is not None:
            found = self._by_time(wanted, self.times, convert)
        return found if found is not None else self._by_counting(wanted, convert)

    def _counted(self) -> int:
        with _reading(self.info.path) as (container, stream):
            return sum(1 for _ in Decoder(container, stream).frames())

    def _by_counting(self, wanted: list[int], convert: Callable[[VideoFrame], Pixels]) -> dict[int, Pixels]:
        found: dict[int, Pixels] = {}
        index = -1
        with _reading(self.info.path) as (container, stream):
            for index, (frame, _) in enumerate(Decoder(container, stream).frames()):
                if index in wanted:
                    found[index] = convert(frame)
                if index == wanted[-1]:
                    return found
        raise _no_such_frame(self.info.path, wanted[-1], index + 1)

    def _by_time(
        self, wanted: list[int], times: _Times, convert: Callable[[VideoFrame], Pixels]
    ) -> dict[int, Pixels] | None:
        """None where the file does not decode as its packets promise."""
        found: dict[int, Pixels] = {}
        with _reading(self.info.path) as (container, stream):
            frames: Iterator[tuple[VideoFrame, Any]] = Decoder(container, stream).frames()
            position = None
            for index in wanted:
                target = int(times.frames[index])
                key = bisect_right(times.keys, target) - 1
                if key > 0 and self.info.container in _SEEKABLE and (position is None or position < times.keys[key]):
                    try:
                        container.seek(int(times.seeks[key]), stream=stream)
                    except (FFmpegError, OSError):
                        return None
                    frames = Decoder(container, stream).frames()
                for frame, _ in frames:
                    position = frame.pts
                    if position is None or position > target or frame.is_corrupt:
                        return None
                    if position == target:
                        found[index] = convert(frame)
                        break
                else:
                    return None
        return found


class _reading:
    """A container and its picture stream, decoded on one thread: training reads many clips side by side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = opened(path)

    def __enter__(self) -> tuple[InputContainer, VideoStream]:
        container = self._opened.__enter__()
        stream = video_stream(container, self._path)
        stream.codec_context.thread_count = 1
        return container, stream

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)


def _frame_times(info: VideoInfo) -> _Times | None:
    """Read off the packets without decoding; None where frames do not follow from packets for sure."""
    if info.container not in _TIMED:
        return None
    frames: list[int] = []
    keys: list[tuple[int, int]] = []
    with _reading(info.path) as (container, stream), suppress(FFmpegError):
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.is_corrupt:
                return None
            if packet.is_keyframe:
                seek = packet.dts if info.container == "mov" and packet.dts is not None else packet.pts
                keys.append((packet.pts, seek))
            elif not keys:
                return None
            if not packet.is_discard:
                frames.append(packet.pts)
    ordered = np.unique(np.array(frames, np.int64))
    if not keys or len(ordered) != len(frames) or (frames and ordered[0] < keys[0][0]):
        return None
    keys.sort()
    return _Times(ordered, np.array([key for key, _ in keys]), np.array([seek for _, seek in keys]))
