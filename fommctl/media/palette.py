"""GIF: a palette of its own for every frame, and the comment that GIF files may carry."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph

from fommctl.media.files import pulled

_COMMENT_EXTENSION, _TRAILER = b"\x21\xfe", b"\x3b"


class PaletteConverter:
    """RGB to 256 colours chosen for each frame, dithered, one frame at a time.

    width, height: of the frames in pixels.  time_base: unit of their timestamps in seconds.
    """

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        self._graph = graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base)
        split = graph.add("split")
        # stats_mode and new: a palette for the single frame; one for the clip would need all of it in memory.
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=floyd_steinberg")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield the paletted frames that are ready after `frame`; None ends the stream."""
        self._graph.push(frame)
        yield from pulled(self._graph.vpull)


def add_gif_extensions(path: Path, metadata: Mapping[str, str], more: bytes = b"") -> None:
    """Put metadata["comment"] (or nothing, where there is none) and `more`, whole extension blocks, into the finished
    GIF, before its trailer."""
    text = metadata.get("comment", "").encode()
    parts = [text[start : start + 255] for start in range(0, len(text), 255)]
    comment = _COMMENT_EXTENSION + b"".join(bytes([len(part)]) + part for part in parts) + b"\x00" if text else b""
    with open(path, "rb+") as file:
        file.seek(-len(_TRAILER), os.SEEK_END)
        file.write(comment + more + _TRAILER)
