"""Channel layouts of sound: read safely, reordered for encoders, mixed down where encoders do not support them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from fommctl.media.files import pulled

_ORDER = (
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC"),
    *("TBR", "DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR"),
)
"""Channels in libav's own order (AV_CHANNEL_ORDER_NATIVE), which filters and encoders need."""
_USUAL = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Default layouts by the number of channels, for unnamed channels and for layouts that an encoder lacks."""
_MOST = max(_USUAL)
_CENTRE = 2**-0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """The channels of a sound track, as the file describes them."""

    name: str
    """libav's description, for messages."""
    channels: tuple[str, ...]
    """libav's names of the channels in the file's order (`FL`, `FR`); `NONE` for unnamed ones."""

    @property
    def named(self) -> bool:
        """Whether each channel has a name of its own that libav can order."""
        return len(set(self.channels)) == len(self.channels) and set(self.channels) <= set(_ORDER)

    @property
    def known(self) -> str | None:
        """The layout that filters know for these channels, or for as many unnamed ones; None if there is none."""
        if not 0 < len(self.channels) <= _MOST:
            return None
        if len(self.channels) == 1 or not self.named:
            return _USUAL[len(self.channels)]
        return str(av.AudioLayout("+".join(sorted(self.channels, key=_ORDER.index))).name)


def take_layout(context: Any) -> Layout:
    """Read the layout of a codec context that has decoded nothing yet, and replace it by a plain one.

    PyAV shares the memory of layouts with a custom channel order, and frees it once with the context and again with
    each decoded frame. Plain layouts have no such memory.
    """
    shared = context.layout
    layout = Layout(shared.name, tuple(channel.name for channel in shared.channels))
    if layout.channels and layout.name != layout.known:
        context.layout = av.AudioLayout(f"{len(layout.channels)} channels")
    return layout


def choose_layout(encoder: str, rate: int, layout: Layout) -> str:
    """Return the layout to encode in: the track's own, else the default for its number of channels, else stereo."""
    known = layout.known
    candidates = () if known is None else (known, _USUAL[len(layout.channels)])
    return next((name for name in candidates if _opens(encoder, rate, name)), "stereo")


def _opens(encoder: str, rate: int, layout: str) -> bool:
    context: Any = av.CodecContext.create(encoder, "w")
    try:
        context.sample_rate, context.layout = rate, layout
        context.format = av.Codec(encoder, "w").audio_formats[0]  # type: ignore[index]
        context.time_base = Fraction(1, rate)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


class Mixer:
    """Converts frames of a track to a layout that swresample knows: reordered, or mixed to stereo if it knows none.

    Samples are packed, because PyAV miscounts the planes of planar frames with eight and more channels.
    """

    def __init__(self, layout: Layout) -> None:
        """layout: the track's, from `take_layout`."""
        self._layout = layout
        self._graph: Graph | None = None
        self._kind: tuple[str, str, int] | None = None

    def __call__(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Return the frame itself if its layout is known, else the converted frames that are ready."""
        layout = self._layout_of(frame)
        if layout.known == frame.layout.name:
            return [frame]
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = _packing(*kind), kind
        self._graph.push(frame)
        return [self._mixed(packed, layout) for packed in pulled(self._graph.pull)]

    def _layout_of(self, frame: av.AudioFrame) -> Layout:
        if frame.layout.nb_channels == len(self._layout.channels):
            return self._layout
        # The input changes its layout on the way.
        return Layout(frame.layout.name, tuple(channel.name for channel in frame.layout.channels))

    def _mixed(self, packed: Any, layout: Layout) -> av.AudioFrame:
        samples = packed.to_ndarray().reshape(-1, len(layout.channels))
        known = layout.known
        if known is None:
            samples, known = samples @ _to_stereo(layout.channels), "stereo"
        elif layout.named:
            order = sorted(range(len(layout.channels)), key=lambda index: _ORDER.index(layout.channels[index]))
            samples = samples[:, order]
        flat = np.ascontiguousarray(samples, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(flat, "flt", known)
        frame.sample_rate = packed.sample_rate
        return frame


def _packing(sample_format: str, layout: str, rate: int) -> Graph:
    """Return a graph that converts frames to packed floats, with channels and rate unchanged."""
    graph = Graph()
    source = graph.add("abuffer", sample_rate=str(rate), sample_fmt=sample_format, channel_layout=layout)
    graph.link_nodes(source, graph.add("aformat", sample_fmts="flt"), graph.add("abuffersink")).configure()
    return graph


def _to_stereo(channels: tuple[str, ...]) -> NDArray[np.float32]:
    """Return mixing weights (n, 2) whose columns sum to 1, so that nothing clips: left and right channels go to their
    side, the centre to both, low-frequency effects to none; unnamed channels alternate, as recorders write them."""
    weights = np.zeros((len(channels), 2), np.float32)
    for index, name in enumerate(channels):
        if name.startswith("LFE"):
            continue
        if name not in _ORDER:
            weights[index, index % 2] = 1
        elif name.endswith("C") and name not in ("FLC", "FRC"):
            weights[index] = _CENTRE
        else:
            weights[index, int("R" in name)] = 1
    return np.asarray(weights / np.maximum(weights.sum(axis=0), 1), np.float32)
