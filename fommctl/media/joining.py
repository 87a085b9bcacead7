"""A result that is written in parts, in several processes, and joined without coding anything twice.

A part holds what the encoder made of some frames in a row: packets with exact times, or pictures. The whole is written
as `Writer` writes it, from the packets of the parts instead of frames: for codecs whose frames stand alone (FFV1,
ProRes, PNG) it is the file that one process would have written; others begin every part with a key frame.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self

import av
import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError
from fommctl.files import create_temporary
from fommctl.media.containers import container_of
from fommctl.media.images_out import PictureSequence
from fommctl.media.movie import Movie, output_errors
from fommctl.media.output_paths import is_pattern, numbered
from fommctl.media.writer import Writer

_RECORD = struct.Struct("<qqq?I")
"""Of a packet: when it is shown and decoded and how long it lasts, in ticks; whether it is a key frame; its bytes."""
_PICTURES = "%08d.png"


@dataclass(frozen=True, slots=True)
class Part:
    """Some frames in a row of a result, coded."""

    path: Path
    """A file of packets, or a folder of pictures."""
    frames: int
    end: Fraction
    """Seconds from the start of the result at which the last frame ends."""
    delay: int
    """Frames by which decoding runs ahead of display."""


def can_join(path: Path) -> bool:
    """Whether an output of this name can be written in parts: frames of a GIF build on those before."""
    return container_of(path).muxer != "gif"


class PartWriter(Writer):
    """Writes one part of a result; takes what `Writer` takes, and the path of the part.

    Times are those of the whole result. `part` is complete at a normal exit; after an exception nothing is left.
    """

    def __init__(self, path: Path, part: Path, **options: Any) -> None:
        super().__init__(path, **{**options, "audio": (), "timecode": None, "complete": None})
        self._target = part
        # What an earlier attempt has left there is of no use.
        self._overwrite = True
        self._end = Fraction(0)
        self._delay = 0

    def __enter__(self) -> Self:
        if is_pattern(self.path):
            pattern = self._target / _PICTURES
            self._sink = PictureSequence(
                pattern, self._encoding, self._metadata, self.threads, self._mark, overwrite=self._overwrite
            )
        else:
            self._temporary = create_temporary(self._target)
            self._sink = self._movie(_PartMovie, self._temporary)
        return self

    def write(self, pixels: NDArray[np.uint8], time: Fraction, duration: Fraction) -> None:
        """As of `Writer`."""
        super().write(pixels, time, duration)
        self._end = time + duration

    @property
    def part(self) -> Part:
        """What was written."""
        delay = self._sink.delay if isinstance(self._sink, _PartMovie) else 0
        return Part(self._target, self.frames_written, self._end, delay)


class JoiningWriter(Writer):
    """Writes a result from its parts; takes what `Writer` takes. The parts are used up."""

    def __enter__(self) -> Self:
        if is_pattern(self.path):
            self._sink = _JoinedPictures(
                self.path, self._encoding, self._metadata, self.threads, self._mark, overwrite=self._overwrite
            )
        else:
            self._temporary = create_temporary(self._target)
            self._sink = self._movie(_JoinedMovie, self._temporary)
        return self

    def join(self, parts: Sequence[Part]) -> None:
        """Add all parts, in their order. Raises InputError for one that is not as it was written."""
        assert isinstance(self._sink, _JoinedMovie | _JoinedPictures), "the writer is not open"
        self._sink.join(parts)
        self.frames_written += sum(part.frames for part in parts)


class _PartMovie(Movie):
    """Codes as a movie does, and keeps the packets in a file of their own."""

    delay = 0
    _file: BinaryIO | None = None

    def _open(self, copy_sound: bool) -> None:
        # Nothing comes into this container: it tells the encoder what the final one will ask of it.
        self._container = av.open(io.BytesIO(), "w", format=self._encoding.container.muxer)
        self._stream = self._add_video()
        self._container.start_encoding()
        self._file = self._temporary.open("wb")

    def _put(self, packet: Any) -> None:
        assert self._file is not None
        assert self._origin is not None
        ticks = self._ticks(packet.pts, packet), self._ticks(packet.dts, packet), self._ticks(packet.duration, packet)
        self.delay += ticks[1] < self._origin[0] * packet.time_base / self._picture.time_base
        data = bytes(packet)
        self._file.write(_RECORD.pack(*ticks, packet.is_keyframe, len(data)) + data)

    def _ticks(self, value: int, packet: Any) -> int:
        ticks: Fraction = value * packet.time_base / self._picture.time_base
        return round(ticks)

    def _complete(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._container.close()

    def abort(self) -> None:
        """Remove what was written."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        super().abort()


class _JoinedMovie(Movie):
    """A movie whose packets were made elsewhere; its own encoder only says what they are."""

    def join(self, parts: Sequence[Part]) -> None:
        with output_errors(self._path):
            delay = max(part.delay for part in parts)
            clock = _Clock(delay, keeps_first=parts[0].delay == delay)
            for part in parts:
                self._add(part, clock, last=part is parts[-1])

    def finish(self) -> None:
        """Complete the file; it is on the disk when this returns."""
        with output_errors(self._path):
            self._complete()
        self._close_sounds()

    def _add(self, part: Part, clock: _Clock, last: bool) -> None:
        self._end = part.end
        with open(part.path, "rb") as file:
            shown = [packet.pts for packet, _ in _packets(file, part.path, skip=True)]
            clock.begin(shown)
            self._last = clock.last
            file.seek(0)
            for number, (packet, data) in enumerate(_packets(file, part.path), start=1):
                self._add_packet(clock.timed(packet), data, last and number == len(shown))

    def _add_packet(self, record: _Record, data: bytes, last: bool) -> None:
        packet: Any = av.Packet(data)
        packet.pts, packet.dts, packet.duration = record.pts, record.dts, record.duration
        packet.time_base = self._picture.time_base
        packet.is_keyframe = record.key
        packet.stream = self._stream
        self._origin = self._origin or (record.pts, record.dts)
        if last:
            self._lengthen(packet)
        until = (record.pts + record.duration) * self._picture.time_base
        self._put(packet)
        for sound in self._sounds:
            sound.pump(until)


class _JoinedPictures(PictureSequence):
    """Pictures that were coded elsewhere, numbered through."""

    def join(self, parts: Sequence[Part]) -> None:
        with output_errors(self._pattern):
            for part in parts:
                for number in range(1, part.frames + 1):
                    self._count += 1
                    target = self._folder / numbered(self._pattern, self._count).name
                    os.replace(numbered(part.path / _PICTURES, number), target)


@dataclass(frozen=True, slots=True)
class _Record:
    pts: int
    dts: int
    duration: int
    key: bool


def _packets(file: BinaryIO, path: Path, *, skip: bool = False) -> Iterator[tuple[_Record, bytes]]:
    """skip: leave the data out."""
    size = os.fstat(file.fileno()).st_size
    while header := file.read(_RECORD.size):
        if len(header) < _RECORD.size:
            raise _cut_short(path)
        *values, length = _RECORD.unpack(header)
        if file.tell() + length > size:
            raise _cut_short(path)
        yield _Record(*values), b"" if skip else file.read(length)
        if skip:
            file.seek(length, os.SEEK_CUR)


def _cut_short(path: Path) -> InputError:
    return InputError(f"a part of the result is cut short: {path}", "Check the disk that it is on; then run it again.")


class _Clock:
    """The times of packets of one part after the other, as one encoder would have given them.

    An encoder that shows frames in another order than it codes them decodes frame n at the time at which the frame
    shown `delay` places before it is shown. Each part has counted from its own beginning, before which its first
    packets are decoded: there the part before it has packets already.
    """

    def __init__(self, delay: int, *, keeps_first: bool) -> None:
        self._delay = delay
        self._keeps_first = keeps_first
        self._moved: dict[int, int] = {}
        self._decoded: list[int | None] = []
        self.last: int | None = None
        """Ticks at which the last frame of the parts so far is shown."""

    def begin(self, shown: Sequence[int]) -> None:
        """shown: ticks at which the packets of the next part are shown."""
        ahead = self._decoded if self.last is not None else self._first(min(shown))
        self._moved = {}
        for ticks in sorted(shown):
            # As within a part: where the clock is coarse, two frames may meet in one tick.
            self.last = ticks if self.last is None else max(ticks, self.last + 1)
            self._moved[ticks] = self.last
        self._decoded = [*ahead, *self._moved.values()]

    def timed(self, packet: _Record) -> _Record:
        """The next packet of the part with its times in the whole."""
        pts = self._moved[packet.pts]
        decoded = self._decoded.pop(0)
        duration = max(1, packet.duration - (pts - packet.pts))
        return _Record(pts, packet.dts if decoded is None else decoded, duration, packet.key)

    def _first(self, start: int) -> list[int | None]:
        """When the packets are decoded that come before anything is shown; None: as the encoder said."""
        return [None if self._keeps_first else start - count for count in range(self._delay, 0, -1)]
