"""Conversion of decoded frames to RGB pixels: cropped, scaled, upright, in SDR bt709 or sRGB.

Y'CbCr without alpha is cropped and scaled before the conversion to RGB, by swscale with accurate rounding and full
chroma interpolation. RGB and frames with alpha are converted first, then cropped and scaled in numpy and PIL: exact if
nothing is scaled, and with alpha multiplied in before pixels are mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from fommctl.errors import UsageError
from fommctl.media.boxes import Box
from fommctl.media.colour import ColourTags, ToneMap, yuv_matrix, yuv_range
from fommctl.media.decoding import UPRIGHT, Orientation
from fommctl.media.limits import MAX_SIDE
from fommctl.media.resampling import Pixels, content, crop, letterboxed, over_black, resize, rounded

_UNSPECIFIED = 2
_SCALER_FLAGS = "bicubic+accurate_rnd+full_chroma_int"

Step = tuple[str, str]


@dataclass(frozen=True)
class View:
    """A part of the displayed picture, and the size of the result.

    whole: (width, height) of the displayed picture.  box: the part, in its pixels; None: all of it.
    size: (width, height) of the result; None: the part's own.
    """

    whole: tuple[int, int]
    box: Box | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.box is not None and not (0 < self.box.width <= MAX_SIDE and 0 < self.box.height <= MAX_SIDE):
            raise UsageError(f"the box {self.box} is empty or larger than {MAX_SIDE} pixels", "Give a smaller square.")

    def turned(self, orientation: Orientation) -> View:
        """Return the same view of the picture as coded, before it is turned for display."""
        box = None if self.box is None else orientation.coded(self.box, self.whole)
        return View(orientation.size(self.whole), box, None if self.size is None else orientation.size(self.size))

    def apply(self, pixels: Pixels, size: tuple[int, int] | None = None) -> Pixels:
        """Fit a whole picture (H, W, C) into `whole`, then crop and resize it.

        size: (width, height) of the picture with square pixels, if its own are not square.
        """
        pixels = letterboxed(pixels, self.whole, size)
        if self.box is None:
            return pixels if self.size is None else resize(pixels, self.size)
        return crop(pixels, self.box) if self.size is None else resize(pixels, self.size, self.box)


class Converter:
    """Converts frames of one clip to (H, W, 3) uint8; it is set up again whenever the frames' format changes.

    Frames of another aspect ratio than the view's are fitted into it, with black bars.
    """

    def __init__(self, view: View, orientation: Orientation, tags: ColourTags, peak: float | None = None) -> None:
        """peak: brightest light of HDR material in cd/m2, if stated."""
        self.view = view.turned(orientation)
        self.orientation = orientation
        self.tags = tags
        self.tonemap = ToneMap(tags, peak) if tags.hdr or tags.wide_gamut else None
        self._kind: tuple[int, int, str, Fraction] | None = None
        self._convert: Callable[[VideoFrame], Pixels]

    def __call__(self, frame: VideoFrame, aspect: Fraction) -> Pixels:
        """Return a new array (H, W, 3) uint8, RGB as displayed.  aspect: width over height of the frame's pixels."""
        kind = (frame.width, frame.height, frame.format.name, aspect)
        if kind != self._kind:
            self._kind = kind
            size = square_pixels(frame, aspect)
            exact = self._wants_exact(frame) or content(size, self.view.whole) is not None
            self._convert = self._exact(frame, size) if exact else self._scaling(frame)
        pixels = self._convert(frame)
        return pixels if self.orientation == UPRIGHT else self.orientation.apply(pixels)

    def _wants_exact(self, frame: VideoFrame) -> bool:
        """Return whether the whole frame is converted before it is cropped: RGB, alpha, and boxes that are mostly
        outside the picture."""
        if self.view.box is not None:
            left, top, width, height = rounded(self.view.box)
            beyond_x = max(-left, left + width - self.view.whole[0])
            beyond_y = max(-top, top + height - self.view.whole[1])
            # libavfilter repeats borders at most as wide as the picture.
            if beyond_x > self.view.whole[0] - 4 or beyond_y > self.view.whole[1] - 4:
                return True
        return self.tonemap is None and (is_rgb(frame) or has_alpha(frame))

    def _exact(self, frame: VideoFrame, size: tuple[int, int]) -> Callable[[VideoFrame], Pixels]:
        """Return the conversion of whole frames, which are then cropped and scaled.

        size: (width, height) of the frame with square pixels.
        """
        tonemap, view = self.tonemap, self.view
        whole = WholeFrame(frame, self.tags, deep=tonemap is not None)
        if tonemap is not None:
            return lambda one: view.apply(tonemap(whole.graph.codes(one)), size)
        return lambda one: view.apply(over_black(*whole(one)), size)

    def _scaling(self, frame: VideoFrame) -> Callable[[VideoFrame], Pixels]:
        tonemap = self.tonemap
        deep = tonemap is not None
        graph = FilterGraph(frame, self.tags, self._steps(frame, deep), "rgb48le" if deep else "rgb24")
        return graph if tonemap is None else lambda one: tonemap(graph.codes(one))

    def _steps(self, frame: VideoFrame, deep: bool) -> list[Step]:
        """Return filters that crop and scale one kind of frame; the last is a scaler, which also converts to RGB."""
        if self.view.box is None:
            width, height = self.view.size or self.view.whole
            return [("scale", f"{width}:{height}")]
        width, height = self.view.whole
        full_chroma = ("format", "yuv444p16le" if deep or frame.format.components[0].bits > 8 else "yuv444p")
        steps: list[Step] = []
        grid = _chroma_grid(frame)
        if (frame.width, frame.height) != self.view.whole:
            steps = [("scale", f"{width}:{height}"), full_chroma]
            grid = (1, 1)
        left, top, cut_width, cut_height = rounded(self.view.box)
        padding, (pad_x, pad_y), padded = _padding(self.view.box, (width, height), grid)
        steps += padding
        x, right = left + pad_x, left + pad_x + cut_width
        y, bottom = top + pad_y, top + pad_y + cut_height
        around_x, around_y = x - x % grid[0], y - y % grid[1]
        around_width = min(_round_up(right, grid[0]), padded[0]) - around_x
        around_height = min(_round_up(bottom, grid[1]), padded[1]) - around_y
        if (around_width, around_height) != (cut_width, cut_height):
            # Not aligned with the chroma grid: crop on the grid, upsample chroma, and crop the rest.
            steps += [
                ("crop", f"{around_width}:{around_height}:{around_x}:{around_y}:exact=1"),
                ("scale", f"{around_width}:{around_height}"),
                full_chroma,
            ]
            x, y = x - around_x, y - around_y
        target = self.view.size or (cut_width, cut_height)
        return [*steps, ("crop", f"{cut_width}:{cut_height}:{x}:{y}:exact=1"), ("scale", f"{target[0]}:{target[1]}")]


def _chroma_grid(frame: VideoFrame) -> tuple[int, int]:
    """Return luma pixels per chroma sample, horizontally and vertically: (2, 2) for 4:2:0."""
    luma, chroma = frame.format.components[0], frame.format.components[min(1, len(frame.format.components) - 1)]
    return max(1, round(luma.width / max(1, chroma.width))), max(1, round(luma.height / max(1, chroma.height)))


def _padding(
    box: Box, size: tuple[int, int], grid: tuple[int, int]
) -> tuple[list[Step], tuple[int, int], tuple[int, int]]:
    """Return filters that extend a picture of this size (width, height) by its border as far as `box` reaches.

    Also returns the pixels added at the left and at the top, multiples of the chroma grid, and the new size.
    """
    left, top, width, height = rounded(box)
    before_x, before_y = _round_up(max(0, -left), grid[0]), _round_up(max(0, -top), grid[1])
    after_x, after_y = max(0, left + width - size[0]), max(0, top + height - size[1])
    if not (before_x or before_y or after_x or after_y):
        return [], (0, 0), size
    after_x += -(size[0] + after_x) % grid[0]
    after_y += -(size[1] + after_y) % grid[1]
    padded = size[0] + before_x + after_x, size[1] + before_y + after_y
    borders = f"left={before_x}:right={after_x}:top={before_y}:bottom={after_y}:mode=smear"
    steps = [("pad", f"{padded[0]}:{padded[1]}:{before_x}:{before_y}"), ("fillborders", borders)]
    return steps, (before_x, before_y), padded


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def square_pixels(frame: VideoFrame, aspect: Fraction) -> tuple[int, int]:
    """Return (width, height) of the coded frame, with the width changed so that pixels are square."""
    return max(1, round(frame.width * aspect)), frame.height


def is_rgb(frame: VideoFrame) -> bool:
    """Return whether a frame holds RGB, planar, packed or with a palette."""
    return frame.format.is_rgb or frame.format.has_palette


def has_alpha(frame: VideoFrame) -> bool:
    """Return whether a frame has an alpha channel, or a palette that may have one."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


class WholeFrame:
    """Converts frames of one size and format to RGB, without cropping, scaling or turning them."""

    def __init__(self, frame: VideoFrame, tags: ColourTags, *, deep: bool = False) -> None:
        """deep: keep 16 bits and drop alpha, for `graph.codes`."""
        self.alpha = has_alpha(frame) and not deep
        pix_fmt = "rgb48le" if deep else "rgba" if self.alpha else "rgb24"
        self.graph = FilterGraph(frame, tags, [("scale", f"{frame.width}:{frame.height}")], pix_fmt)

    def __call__(self, frame: VideoFrame) -> tuple[Pixels, Pixels | None]:
        """Return (H, W, 3) RGB, and straight alpha (H, W) or None."""
        pixels = self.graph(frame)
        if not self.alpha:
            return pixels, None
        return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])


class FilterGraph:
    """A chain of libavfilter filters for frames of one size and format."""

    def __init__(self, frame: VideoFrame, tags: ColourTags, steps: list[Step], pix_fmt: str) -> None:
        """steps: (filter, arguments) in order; quality flags and colours are added to scalers here."""
        self.graph = Graph()
        self.graph.threads = 1
        name = frame.format.name
        source = f"video_size={frame.width}x{frame.height}:pix_fmt={name}:time_base=1/1000:pixel_aspect=1/1"
        nodes = [self.graph.add("buffer", source)]
        matrix, extent = yuv_matrix(tags, frame.width, frame.height), yuv_range(tags, name)
        coded = "" if is_rgb(frame) else f":in_color_matrix={matrix}:in_range={extent}"
        # Scalers before the last one must keep matrix and range.
        kept = f":out_color_matrix={matrix}:out_range={extent}"
        last = len(steps) - 1
        # Planar first: swscale interpolates chroma for planes with vector instructions, three times as fast, with the
        # same values.
        planes = [("format", "gbrp")] if pix_fmt == "rgb24" and not is_rgb(frame) else []
        for number, (filter_name, arguments) in enumerate([*steps, *planes, ("format", pix_fmt)]):
            if filter_name == "scale":
                arguments = f"{arguments}:flags={_SCALER_FLAGS}{coded}{kept if number < last else ''}"
            nodes.append(self.graph.add(filter_name, arguments))
        nodes.append(self.graph.add("buffersink"))
        self.graph.link_nodes(*nodes).configure()

    def __call__(self, frame: VideoFrame) -> Pixels:
        """Run one frame through the chain: a new array (H, W, C) uint8."""
        return np.asarray(self._run(frame).to_ndarray(), dtype=np.uint8)

    def codes(self, frame: VideoFrame) -> NDArray[np.uint16]:
        """Run one frame through a chain that ends in a 16-bit format: (H, W, C) uint16."""
        return np.asarray(self._run(frame).to_ndarray(), dtype=np.uint16)

    def _run(self, frame: VideoFrame) -> VideoFrame:
        # The scalers have the colours as arguments; swscale would refuse frames with tags that it does not know.
        frame.colorspace = frame.color_primaries = frame.color_trc = _UNSPECIFIED
        self.graph.vpush(frame)
        return self.graph.vpull()
