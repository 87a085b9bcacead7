"""Colours of the output: which tags it carries, and RGB to the encoder's pixel format by the matrix that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import av
from av.video.reformatter import Interpolation, VideoReformatter

from fommctl.media.colour import BT601_525, BT709, BT2020, RANGE_FULL, RANGE_LIMITED, RGB_MATRIX, ColourTags
from fommctl.media.containers import Encoding

_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Matrix code of H.273 -> swscale's code, for the matrices that swscale can apply."""
_TRANSFER_BT2020 = 14
_CURVES_LIKE_BT709 = (BT601_525, _TRANSFER_BT2020, 15)
_FLAGS = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)


def output_colour(source: ColourTags | None, width: int, height: int, encoding: Encoding) -> ColourTags:
    """Complete tags for an output of width x height pixels.

    The source's where given; what it leaves open follows its matrix, or the size (bt709 from 1280 x 720 up, bt601
    below). HDR and wide gamut become bt709, because the reader has brought their pixels there.
    """
    given = source or ColourTags()
    if given.hdr or given.wide_gamut:
        given = ColourTags(BT709, BT709, BT709, given.range)
    matrix = given.matrix if given.matrix in _SWSCALE_MATRIX else None
    if matrix is None:
        matrix = BT709 if width >= 1280 or height >= 720 else BT601_525
    # BT.601 in its 625-line form (5) has primaries of its own and the transfer function of the 525-line form.
    transfer = {BT2020: _TRANSFER_BT2020, 5: BT601_525}.get(matrix, matrix)
    tags = ColourTags(given.primaries or matrix, given.transfer or transfer, matrix, given.range or RANGE_LIMITED)
    if encoding.rgb:
        return replace(tags, matrix=RGB_MATRIX, range=RANGE_FULL)
    return _prores(tags) if encoding.encoder.name == "prores" else tags


def _prores(tags: ColourTags) -> ColourTags:
    """The nearest tags that a ProRes frame header holds (SMPTE RDD 36, section 6.1.1): no full range, and one code
    where H.273 has several for the same curve or matrix."""
    transfer = BT709 if tags.transfer in _CURVES_LIKE_BT709 else tags.transfer
    return replace(tags, transfer=transfer, matrix=BT601_525 if tags.matrix == 5 else tags.matrix, range=RANGE_LIMITED)


class Converter(Protocol):
    """Turns RGB frames into frames of the encoder's format; may hold frames back."""

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """The frames that are ready after `frame`; None ends the stream."""


class MatrixConverter:
    """RGB or RGBA to the encoder's pixel format, tagged."""

    def __init__(self, pix_fmt: str, tags: ColourTags) -> None:
        self._pix_fmt = pix_fmt
        self._tags = tags
        self._reformatter = VideoReformatter()

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """The one frame that `frame` becomes."""
        if frame is None:
            return
        changes: dict[str, Any] = {}
        if self._tags.matrix != RGB_MATRIX:
            changes = {
                "dst_colorspace": _SWSCALE_MATRIX[self._tags.matrix or BT709],
                "dst_color_range": self._tags.range,
            }
        ready = self._reformatter.reformat(frame, format=self._pix_fmt, interpolation=_FLAGS, threads=1, **changes)
        # ProRes writes the tags of the frame, the others those of the codec context.
        tag(ready, self._tags)
        yield ready


def tag(target: Any, tags: ColourTags) -> None:
    """Set the colour tags of a frame or of a codec context."""
    target.color_primaries = tags.primaries or 2
    target.color_trc = tags.transfer or 2
    target.colorspace = 2 if tags.matrix is None else tags.matrix
    target.color_range = tags.range or 0
