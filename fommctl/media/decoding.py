"""Decoding of frames, with their times, orientation and deinterlacing; decoding continues after damage, which is
counted."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fommctl.errors import MORE_MEMORY, InputError
from fommctl.media import Deinterlace
from fommctl.media.boxes import Box
from fommctl.media.files import demuxed, nominal_rate, pixel_aspect, pulled, side_data, time_base
from fommctl.media.resampling import Number
from fommctl.media.stills import LONGEST_PAUSE


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transpose first, then mirror left to right and top to bottom: all eight orientations of a picture."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: NDArray[Number]) -> NDArray[Number]:
        """Convert a coded picture (H, W, C) to the displayed one, contiguous in memory."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.mirror_x:
            pixels = pixels[:, ::-1]
        if self.mirror_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Convert (width, height) from coded to displayed, or back."""
        return (size[1], size[0]) if self.transpose else size

    def coded(self, box: Box, displayed: tuple[int, int]) -> Box:
        """Convert a box in the displayed picture to the coded one.  displayed: (width, height)."""
        width, height = displayed
        left, right = (width - box.right, width - box.left) if self.mirror_x else (box.left, box.right)
        top, bottom = (height - box.bottom, height - box.top) if self.mirror_y else (box.top, box.bottom)
        return Box(top, left, bottom, right) if self.transpose else Box(left, top, right, bottom)


UPRIGHT = Orientation()
_BY_ANGLE = {
    1: Orientation(transpose=True, mirror_y=True),
    2: Orientation(mirror_x=True, mirror_y=True),
    3: Orientation(transpose=True, mirror_x=True),
}
"""Orientations by counterclockwise quarter turns."""


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation in a frame's display matrix, rounded to quarter turns; upright if there is none."""
    matrix = side_data(frame).get(Type.DISPLAYMATRIX)
    if matrix is None or len(matrix) < 36:
        return _BY_ANGLE.get(round(frame.rotation / 90) % 4, UPRIGHT)
    # x' = a x + c y and y' = b x + d y, y downwards (ffmpeg, display.h).
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(a) >= abs(b):
        return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)


_PARITIES = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""bwdif's parity by libav's field order: AV_FIELD_TT, BB, TB, BT, the last two with differing coded order."""


def stated_parity(stream: VideoStream, frame: VideoFrame) -> str | None:
    """Return bwdif's parity for interlaced footage, `auto` if frames state which field is first; None for progressive
    footage.

    frame: the first frame.
    """
    if frame.interlaced_frame:
        return "auto"
    # 1 is progressive, 0 unknown; PyAV has it since version 18.
    return _PARITIES.get(getattr(stream.codec_context, "field_order", 0))


def deinterlaced(frames: Iterable[Decoded], mode: Deinterlace, parity: str | None, step: Fraction) -> Iterator[Decoded]:
    """Yield the frames in order, with interlaced ones deinterlaced (bwdif); buffers up to two.

    parity: from `stated_parity`.  step: duration of the last frame in seconds.
    """
    if mode == "off":
        yield from frames
        return
    bwdif: _Bwdif | None = None
    for decoded in frames:
        if bwdif is not None and not bwdif.takes(decoded):
            yield from bwdif.finish()
            bwdif = None
        if bwdif is None:
            if not decoded.frame.interlaced_frame and parity in (None, "auto"):
                yield decoded
                continue
            bwdif = _Bwdif(decoded, mode, parity or "auto", step)
        yield from bwdif.push(decoded)
    if bwdif is not None:
        yield from bwdif.finish()


class _Bwdif:
    """The filter bwdif for frames of one kind. Frames get numbers as timestamps, which the filter doubles."""

    def __init__(self, first: Decoded, mode: Deinterlace, parity: str, step: Fraction) -> None:
        frame = first.frame
        self._kind = _kind(first)
        self._step = step
        self._times: dict[int, Fraction] = {}
        self._count = 0
        self._graph = graph = Graph()
        size, pix_fmt = f"{frame.width}x{frame.height}", frame.format.name
        source = graph.add("buffer", f"video_size={size}:pix_fmt={pix_fmt}:time_base=1/1000:pixel_aspect=1/1")
        # Frames without a flag are deinterlaced only if the container says that all are interlaced.
        which = "interlaced" if parity == "auto" else "all"
        sent = "send_field" if mode == "field" else "send_frame"
        filters = graph.add("bwdif", f"mode={sent}:parity={parity}:deint={which}"), graph.add("format", pix_fmt)
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()

    def takes(self, decoded: Decoded) -> bool:
        """Return whether the frame has the size, format and pixel aspect of the frames before."""
        return _kind(decoded) == self._kind

    def push(self, decoded: Decoded) -> Iterator[Decoded]:
        """Add a frame, and yield the frames that are ready."""
        frame = decoded.frame
        self._times[self._count] = decoded.time
        frame.pts, frame.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        self._graph.vpush(frame)
        yield from self._ready()

    def finish(self) -> Iterator[Decoded]:
        """Yield the buffered frames."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Decoded]:
        for frame in pulled(self._graph.vpull):
            number, second = divmod(frame.pts or 0, 2)
            time = self._times[number]
            if second:
                time += (self._times.get(number + 1, time + self._step) - time) / 2
            for old in [each for each in self._times if each < number]:
                del self._times[old]
            yield Decoded(frame, time, self._kind[-1])


def _kind(decoded: Decoded) -> tuple[Any, ...]:
    frame = decoded.frame
    return frame.width, frame.height, frame.format.name, decoded.aspect


MAX_ERRORS = 500
"""Failures in a row after which decoding stops: what follows is noise."""


@dataclass
class Damage:
    """Problems in decoding a file."""

    skipped: int = 0
    corrupt: int = 0
    jumps: int = 0
    pauses: int = 0
    gave_up: bool = False

    def messages(self, path: Path) -> list[str]:
        """Return one line for each kind of damage."""
        found = [
            (self.skipped, f"{path.name} is damaged: {self.skipped} packet(s) could not be decoded and were skipped"),
            (self.corrupt, f"{path.name} is damaged: {self.corrupt} frame(s) are incomplete"),
            (self.jumps, f"{path.name}: timestamps run backwards in {self.jumps} place(s) and were put in order"),
            (self.pauses, f"{path.name}: timestamps jump by more than an hour in {self.pauses} place(s), left out"),
            (self.gave_up, f"{path.name} is damaged: reading stopped after {MAX_ERRORS} errors in a row"),
        ]
        return [message for happened, message in found if happened]


_ALL_OR_NOTHING = "libdav1d"
"""A decoder that decodes no part of a truncated packet, and then drops the frames that it has buffered."""


class Decoded(NamedTuple):
    """A frame, its time in seconds on the file's clock, and width over height of its pixels."""

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
        """Yield each frame that can be decoded."""
        tick, step = time_base(self.stream), 1 / nominal_rate(self.stream)
        # AVI numbers frames in coding order only; the display times that libav derives from it are out of order.
        coded_times = self.container.format.name == "avi"
        last: Fraction | None = None
        shift = Fraction(0)
        for frame in self._decoded():
            ticks = frame.dts if coded_times else frame.pts
            if ticks is None:
                time = Fraction(0) if last is None else last + step
            else:
                time = ticks * tick + shift
            if last is not None and not 0 < time - last <= LONGEST_PAUSE:
                # A splice or a broken clock: later frames keep their spacing, but follow the frames before.
                if time <= last:
                    self.damage.jumps += 1
                else:
                    self.damage.pauses += 1
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
                failures += 1
                if self._gives_up(error, failures):
                    return
                continue
            if frames:
                failures = 0
                yield from frames

    def _packets(self) -> Iterator[Packet[Any]]:
        """Yield packets to the end of the file, the flush packet last; a demuxer that fails is restarted."""
        failures = 0
        packets = demuxed(self.container, self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (FFmpegError, OSError) as error:
                failures += 1
                if self._gives_up(error, failures):
                    return
                packets = demuxed(self.container, self.stream)
                continue
            failures = 0
            self.damage.corrupt += bool(packet.is_corrupt)
            if packet.is_corrupt and self.stream.codec_context.name == _ALL_OR_NOTHING:
                continue
            yield packet

    def _gives_up(self, error: Exception, failures: int) -> bool:
        """Count a failure, and return whether there were too many in a row. Raises InputError if memory or threads ran
        out: then the frames are not damaged, and must not be skipped."""
        if getattr(error, "errno", None) in (errno.ENOMEM, errno.EAGAIN):
            raise InputError("not enough memory to decode the video", MORE_MEMORY) from error
        self.damage.skipped += 1
        self.damage.gave_up = failures >= MAX_ERRORS
        return self.damage.gave_up
