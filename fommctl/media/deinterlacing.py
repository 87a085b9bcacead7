"""Interlaced footage: two moments woven into one picture become one whole picture, or two.

Frames say themselves whether they are interlaced and which field comes first; where they do not, the container does.
Progressive frames pass as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fommctl.media import Deinterlace
from fommctl.media.decoding import Decoded

_PARITIES = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""libav's field order (AV_FIELD_TT, BB, TB, BT; the latter two are coded in another order than they are shown) ->
bwdif's parity."""


def stated_parity(stream: VideoStream, frame: VideoFrame) -> str | None:
    """bwdif's parity where the file says that its frames are interlaced: `auto` where they say which field is first.

    frame: the first one. None for progressive footage.
    """
    if frame.interlaced_frame:
        return "auto"
    # 1 is progressive, 0 unknown; PyAV has it since version 18.
    return _PARITIES.get(getattr(stream.codec_context, "field_order", 0))


def deinterlaced(frames: Iterable[Decoded], mode: Deinterlace, parity: str | None, step: Fraction) -> Iterator[Decoded]:
    """The frames with interlaced ones made whole (bwdif), in order; up to two are held back.

    parity: as of `stated_parity`.  step: seconds that the last frame lasts.
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
    """bwdif over frames of one kind. Frames are numbered for the filter, which doubles the numbers."""

    def __init__(self, first: Decoded, mode: Deinterlace, parity: str, step: Fraction) -> None:
        frame = first.frame
        self._kind = _kind(first)
        self._step = step
        self._times: dict[int, Fraction] = {}
        self._count = 0
        self._graph = graph = Graph()
        size, pix_fmt = f"{frame.width}x{frame.height}", frame.format.name
        source = graph.add("buffer", f"video_size={size}:pix_fmt={pix_fmt}:time_base=1/1000:pixel_aspect=1/1")
        # Unflagged frames are deinterlaced only where the container says that all are interlaced.
        which = "interlaced" if parity == "auto" else "all"
        sent = "send_field" if mode == "field" else "send_frame"
        filters = graph.add("bwdif", f"mode={sent}:parity={parity}:deint={which}"), graph.add("format", pix_fmt)
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()

    def takes(self, decoded: Decoded) -> bool:
        """Whether the frame is of the same size, format and shape as those before."""
        return _kind(decoded) == self._kind

    def push(self, decoded: Decoded) -> Iterator[Decoded]:
        """What is ready once this frame is known."""
        frame = decoded.frame
        self._times[self._count] = decoded.time
        frame.pts, frame.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        self._graph.vpush(frame)
        yield from self._ready()

    def finish(self) -> Iterator[Decoded]:
        """What is held back."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Decoded]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
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
