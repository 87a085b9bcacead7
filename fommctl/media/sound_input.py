"""The sound track of a file, read packet by packet as the video that it belongs to is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Discard

from fommctl.media.files import open_container
from fommctl.media.layouts import take_layout

_WORTH_SEEKING = Fraction(2)
_LEAD = Fraction(1, 2)
_SEEKABLE = ("mov,", "matroska,")
_OPUS_RATE = 48000


@dataclass(frozen=True)
class AudioSource:
    """A sound track and the part of it that belongs to the output."""

    path: Path
    track: int
    """Index of the stream in the file."""
    origin: Fraction
    """Seconds on the file's own clock that become time 0."""
    end: Fraction | None = None
    """Seconds on the file's own clock at which it stops; None for the end of the video."""
    right: int | None = None
    """Index of a second mono stream, which becomes the right channel; `track` is the left one then."""

    def until(self, instant: Fraction) -> Fraction:
        """`instant`, or the end of the part where that comes first, in seconds of the output."""
        return instant if self.end is None else min(instant, self.end - self.origin)


class SoundInput:
    """An open sound track; packets have a `pts` always."""

    def __init__(self, container: Any, stream: Any, warnings: list[str]) -> None:
        self.stream = stream
        self.codec: str = stream.codec_context.codec.canonical_name
        self.layout = take_layout(stream.codec_context)
        self.language: str = stream.metadata.get("language", "und")
        self._container = container
        self._warnings = warnings
        self._packets: Iterator[Any] = iter(container.demux(stream))
        self._next: Any = None
        self._clock = 0

    @property
    def pre_skip(self) -> Fraction:
        """Seconds at the start of an Opus stream that decoders throw away (RFC 7845, section 5.1); 0 for others."""
        header = self.stream.codec_context.extradata
        if self.codec != "opus" or not header or len(header) < 12:
            return Fraction(0)
        return Fraction(int.from_bytes(header[10:12], "little"), _OPUS_RATE)

    def packets_before(self, instant: Fraction) -> Iterator[Any]:
        """The packets, not read yet, that start before `instant` seconds on the file's clock."""
        while self._peek() and self._next.pts * self._next.time_base < instant:
            packet, self._next = self._next, None
            yield packet

    @property
    def exhausted(self) -> bool:
        """Whether every packet was read."""
        return not self._peek()

    def skip_to(self, instant: Fraction) -> None:
        """Go on from the last packet that starts at or before `instant` seconds on the file's clock.

        Formats other than MP4 and Matroska find a time by the bit rate, which is not exact: they are read through.
        """
        unit, first = self.stream.time_base, self.stream.start_time or 0
        if instant - first * unit < _WORTH_SEEKING or not self._container.format.name.startswith(_SEEKABLE):
            return
        self._seek(round(instant / unit))
        if not self._peek() or self._next.pts * unit > instant:
            self._seek(first)

    def _seek(self, ticks: int) -> None:
        self._container.seek(ticks, stream=self.stream, backward=True)
        self._packets, self._next = iter(self._container.demux(self.stream)), None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _peek(self) -> bool:
        while self._next is None:
            try:
                packet = next(self._packets, None)
            except av.FFmpegError as error:
                self._warnings.append(f"the sound stops early: {error.strerror or error}".lower())
                packet = None
            if packet is None:
                self._packets = iter(())
                return False
            if packet.size:
                self._next = self._timed(packet)
        return True

    def _timed(self, packet: Any) -> Any:
        if packet.pts is None:
            packet.pts = self._clock if packet.dts is None else packet.dts
        self._clock = packet.pts + (packet.duration or 0)
        return packet


def open_input(source: AudioSource, warnings: list[str]) -> SoundInput | None:
    """Open the track for reading from shortly before its origin; None, with a warning, where that cannot be done."""
    try:
        container = open_container(source.path)
        stream: Any = container.streams[source.track]
        if stream.type != "audio" or stream.codec_context is None or not stream.codec_context.sample_rate:
            container.close()
            warnings.append("the sound is left out: its codec or its rate is unknown")
            return None
        for other in container.streams:
            if other.index != source.track:
                other.discard = Discard.all
        sound = SoundInput(container, stream, warnings)
        sound.skip_to(source.origin - _LEAD)
        return sound
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        warnings.append(f"the sound is left out: {error}")
        return None
