"""Colour descriptions of video: tags, and how untagged video is read. Codes are those of ITU-T H.273, as in ffmpeg."""

from __future__ import annotations

from dataclasses import dataclass

RGB_MATRIX = 0
BT709 = 1
BT601_625, BT601_525 = 5, 6
BT2020 = 9
BT2020_CONSTANT_LUMINANCE = 10
PRIMARIES_P3_DCI, PRIMARIES_P3_D65 = 11, 12
TRANSFER_PQ, TRANSFER_HLG = 16, 18
RANGE_LIMITED, RANGE_FULL = 1, 2

_UNSPECIFIED = {0, 2, 3}
_MATRIX_NAMES = {
    BT709: "bt709",
    4: "fcc",
    BT601_625: "bt470bg",
    BT601_525: "smpte170m",
    7: "smpte240m",
    BT2020: "bt2020",
    BT2020_CONSTANT_LUMINANCE: "bt2020",
}
"""Names by which swscale knows the matrices that it can invert."""


@dataclass(frozen=True, slots=True)
class ColourTags:
    """What a file says about its colours: codes of ITU-T H.273 (ffmpeg's integers), None where it says nothing."""

    primaries: int | None = None
    transfer: int | None = None
    matrix: int | None = None
    range: int | None = None

    @property
    def hdr(self) -> bool:
        """Whether the transfer function is PQ or HLG."""
        return self.transfer in (TRANSFER_PQ, TRANSFER_HLG)

    @property
    def wide_gamut(self) -> bool:
        """Whether the primaries differ visibly from bt709's: BT.2020 and P3."""
        return self.primaries in (BT2020, PRIMARIES_P3_DCI, PRIMARIES_P3_D65)


def read_tags(primaries: int, transfer: int, matrix: int, colour_range: int) -> ColourTags:
    """Tags from ffmpeg's integers; unspecified and reserved codes become None."""
    return ColourTags(
        primaries=None if primaries in _UNSPECIFIED else int(primaries),
        transfer=None if transfer in _UNSPECIFIED else int(transfer),
        matrix=None if matrix in (2, 3) else int(matrix),
        range=int(colour_range) if colour_range in (RANGE_LIMITED, RANGE_FULL) else None,
    )


def yuv_matrix(tags: ColourTags, width: int, height: int) -> str:
    """swscale's name of the matrix that turns Y'CbCr into R'G'B'.

    width, height: coded size in pixels. Untagged video is read as bt709 from 1280 x 720 up and as bt601 below, which
    is what it is made with; a matrix that swscale cannot invert (such as ICtCp) is read by the same rule.
    """
    name = _MATRIX_NAMES.get(tags.matrix) if tags.matrix is not None else None
    if name is not None:
        return name
    if tags.primaries == BT2020:
        return "bt2020"
    return "bt709" if width >= 1280 or height >= 720 else "smpte170m"


def yuv_range(tags: ColourTags, pix_fmt: str) -> str:
    """swscale's name of the range of the code values: "full" (0 to 255) or "limited" (16 to 235)."""
    if tags.range is not None:
        return "full" if tags.range == RANGE_FULL else "limited"
    return "full" if pix_fmt.startswith("yuvj") else "limited"
