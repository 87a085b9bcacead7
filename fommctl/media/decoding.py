"""Decoding that goes on after damage: frames with their times, and what was lost."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fommctl.errors import MORE_MEMORY, InputError
from fommctl.media.files import nominal_rate, pixel_aspect, time_base

MAX_ERRORS = 500
"""Decoding stops after so many failures in a row: what follows is noise."""


@dataclass
class Damage:
    """What went wrong while a file was decoded."""

    skipped: int = 0
    corrupt: int = 0
    jumps: int = 0
    gave_up: bool = False

    def messages(self, path: Path) -> list[str]:
        """One line for each kind of damage."""
        found = [
            (self.skipped, f"{path.name} is damaged: {self.skipped} packet(s) could not be decoded and were skipped"),
            (self.corrupt, f"{path.name} is damaged: {self.corrupt} frame(s) are incomplete"),
            (self.jumps, f"{path.name}: timestamps run backwards in {self.jumps} place(s) and were put in order"),
            (self.gave_up, f"{path.name} is damaged: reading stopped after {MAX_ERRORS} errors in a row"),
        ]
        return [message for happened, message in found if happened]


class Decoded(NamedTuple):
    """A frame, its time in absolute seconds of the file, and width over height of its pixels."""

    frame: VideoFrame
    time: Fraction
    aspect: Fraction


@dataclass
class Decoder:
    """Frames of one stream in display order, with strictly increasing times."""

    container: InputContainer
    stream: VideoStream
    damage: Damage = field(default_factory=Damage)

    def frames(self) -> Iterator[Decoded]:
        """Each frame that can be decoded."""
        tick, step = time_base(self.stream), 1 / nominal_rate(self.stream)
        # AVI numbers frames in coding order only; the times of display that libav makes up for it are out of order.
        coded_times = self.container.format.name == "avi"
        last: Fraction | None = None
        shift = Fraction(0)
        for frame in self._decoded():
            ticks = frame.dts if coded_times else frame.pts
            if ticks is None:
                time = Fraction(0) if last is None else last + step
            else:
                time = ticks * tick + shift
            if last is not None and time <= last:
                # A splice or a broken clock: what follows keeps its own spacing, after what came before.
                self.damage.jumps += 1
                shift += last + step - time
                time = last + step
            last = time
            self.damage.corrupt += bool(frame.is_corrupt)
            yield Decoded(frame, time, pixel_aspect(self.stream))

    def _decoded(self) -> Iterator[VideoFrame]:
        failures = 0
        for packet in self._packets():
            try:
                frames: list[Any] = self.stream.codec_context.decode(packet)
            except (FFmpegError, ValueError) as error:
                _check_memory(error)
                self.damage.skipped += 1
                failures += 1
                if failures >= MAX_ERRORS:
                    self.damage.gave_up = True
                    return
                continue
            if frames:
                failures = 0
                yield from frames

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets to the end of the file, with the flush packet last; a demuxer that fails is asked again."""
        failures = 0
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (FFmpegError, OSError) as error:
                _check_memory(error)
                self.damage.skipped += 1
                failures += 1
                if failures >= MAX_ERRORS:
                    self.damage.gave_up = True
                    return
                packets = self.container.demux(self.stream)
                continue
            failures = 0
            self.damage.corrupt += bool(packet.is_corrupt)
            yield packet


def _check_memory(error: Exception) -> None:
    """Frames are not damaged, and not to be left out, where memory or threads run out."""
    if getattr(error, "errno", None) in (errno.ENOMEM, errno.EAGAIN):
        raise InputError("the memory does not suffice to decode the video", MORE_MEMORY) from error
