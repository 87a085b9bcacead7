"""Colour of videos: tags in and out, how untagged video is read, HDR to SDR. Codes are from ITU-T H.273."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from fommctl.media.containers import Encoding

RGB_MATRIX = 0
BT709 = 1
BT601_625, BT601_525 = 5, 6
BT2020 = 9
BT2020_CONSTANT_LUMINANCE = 10
PRIMARIES_P3_DCI, PRIMARIES_P3_D65 = 11, 12
TRANSFER_BT2020, TRANSFER_PQ, TRANSFER_HLG = 14, 16, 18
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
"""swscale's names of the matrices that it can invert."""


@dataclass(frozen=True, slots=True)
class ColourTags:
    """Colour tags of a file: codes of ITU-T H.273 (ffmpeg's integers), None where unspecified."""

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
    """Convert ffmpeg's integers to tags; unspecified and reserved codes become None."""
    return ColourTags(
        primaries=None if primaries in _UNSPECIFIED else int(primaries),
        transfer=None if transfer in _UNSPECIFIED else int(transfer),
        matrix=None if matrix in (2, 3) else int(matrix),
        range=int(colour_range) if colour_range in (RANGE_LIMITED, RANGE_FULL) else None,
    )


def yuv_matrix(tags: ColourTags, width: int, height: int) -> str:
    """Return swscale's name of the matrix that turns Y'CbCr into R'G'B'.

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
    """Return swscale's name of the range of the code values: "full" (0 to 255) or "limited" (16 to 235)."""
    if tags.range is not None:
        return "full" if tags.range == RANGE_FULL else "limited"
    return "full" if pix_fmt.startswith("yuvj") else "limited"


Float = NDArray[np.float32]

REFERENCE_WHITE = 203.0
"""cd/m2 of diffuse white in HDR programmes (ITU-R BT.2408, table 1)."""
DEFAULT_PEAK = 1000.0
"""cd/m2 assumed if the file does not state its brightest pixel; also the nominal peak of HLG."""
SDR_GAMMA = 2.4
_KNEE = 0.5
_CODES = 65536
_ENCODE_STEPS = 4096

_CHROMATICITIES = {
    BT709: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    PRIMARIES_P3_DCI: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    PRIMARIES_P3_D65: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""x and y of red, green and blue (ITU-T H.273, table 2); fommctl takes the white point of all of them as D65."""
_D65 = (0.3127, 0.3290)
BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_PQ = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
"""m1, m2, c1, c2 and c3 of SMPTE ST 2084."""
_HLG = 0.17883277, 0.28466892, 0.55991073
"""a, b and c of ITU-R BT.2100, table 5."""


def pq_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert a PQ signal in [0, 1] to light in cd/m2 (SMPTE ST 2084, equation 4)."""
    m1, m2, c1, c2, c3 = _PQ
    root = np.power(signal, 1 / m2)
    return np.asarray(10000 * np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1))


def pq_signal(light: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert light in cd/m2 to a PQ signal in [0, 1], the inverse of `pq_light`."""
    m1, m2, c1, c2, c3 = _PQ
    part = np.power(np.maximum(light, 0) / 10000, m1)
    return np.asarray(np.power((c1 + c2 * part) / (1 + c3 * part), m2))


def hlg_signal(light: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert scene light to an HLG signal, the inverse of `hlg_scene_light` (ITU-R BT.2100, table 5, OETF)."""
    a, b, c = _HLG
    light = np.maximum(light, 0)
    bright = a * np.log(np.maximum(12 * light - b, 1e-9)) + c
    return np.asarray(np.where(light <= 1 / 12, np.sqrt(3 * light), bright))


def hlg_scene_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert an HLG signal in [0, 1] to scene light in [0, 1] (ITU-R BT.2100, table 5, inverse OETF)."""
    a, b, c = _HLG
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def to_xyz(primaries: Sequence[float]) -> NDArray[np.float64]:
    """Return the matrix (3, 3) from linear light to XYZ.  primaries: x and y of red, green, blue and white."""
    points = np.array(primaries, np.float64).reshape(4, 2)
    columns = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points[:, 0] - points[:, 1]) / points[:, 1]])
    return np.asarray(columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]))


@cache
def to_bt709(primaries: int) -> Float:
    """Return the matrix (3, 3) from linear light in `primaries` to linear light in bt709 primaries."""
    matrices = [to_xyz([*_CHROMATICITIES[code], *_D65]) for code in (BT709, primaries)]
    return np.linalg.solve(*matrices).astype(np.float32)


@cache
def _light_table(transfer: int | None) -> Float:
    """Return the light of each 16-bit code, relative to reference white; scene light in [0, 1] for HLG."""
    signal = np.arange(_CODES) / (_CODES - 1)
    if transfer == TRANSFER_PQ:
        return (pq_light(signal) / REFERENCE_WHITE).astype(np.float32)
    if transfer == TRANSFER_HLG:
        return hlg_scene_light(signal).astype(np.float32)
    return (signal**SDR_GAMMA).astype(np.float32)


@cache
def _signal_table() -> NDArray[np.uint8]:
    """Return the 8-bit bt709 signal, tabulated over the square root of the light, where steps look even to the eye."""
    light = (np.arange(_ENCODE_STEPS) / (_ENCODE_STEPS - 1)) ** 2
    return np.rint(255 * light ** (1 / SDR_GAMMA)).astype(np.uint8)


class ToneMap:
    """Converts R'G'B' of one clip to SDR bt709, with one curve for all frames, so that brightness never pumps."""

    def __init__(self, tags: ColourTags, peak: float | None = None) -> None:
        """peak: brightest light of the clip in cd/m2, if its metadata states it."""
        self.transfer = tags.transfer
        self.primaries = tags.primaries if tags.primaries in _CHROMATICITIES else (BT2020 if tags.hdr else 1)
        brightest = DEFAULT_PEAK if tags.transfer == TRANSFER_HLG else min(max(peak or DEFAULT_PEAK, 250.0), 10000.0)
        self.peak = brightest / REFERENCE_WHITE if tags.hdr else 1.0

    def __call__(self, codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Map a picture to SDR.

        codes: (H, W, 3) R'G'B', full range of 16 bits.  Returns (H, W, 3) uint8 R'G'B' of bt709, gamma 2.4.
        """
        light = np.take(_light_table(self.transfer), codes)
        if self.transfer == TRANSFER_HLG:
            # The system gamma of a 1,000 cd/m2 display (BT.2100, table 5, OOTF).
            luminance = np.maximum(light @ BT2020_LUMA.astype(np.float32), np.float32(1e-6))
            light *= (np.power(luminance, np.float32(0.2)) * np.float32(DEFAULT_PEAK / REFERENCE_WHITE))[..., None]
        light = light @ to_bt709(self.primaries or 1).T
        if self.peak > 1:
            light *= self._gain(light.max(axis=2))[..., None]
        np.clip(light, 0, 1, out=light)
        steps = np.sqrt(light, out=light)
        steps *= _ENCODE_STEPS - 1
        steps += 0.5
        return np.take(_signal_table(), steps.astype(np.uint16))

    def _gain(self, brightest: Float) -> Float:
        """Return the factor that maps (H, W) light in [0, peak] to [0, 1]: 1 up to the knee, a Moebius curve above
        it."""
        knee, peak = _KNEE, self.peak
        a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
        b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
        scale = (b**2 + 2 * b * knee + knee**2) / (b - a)
        above = np.maximum(brightest, np.float32(knee))
        return np.where(brightest > knee, np.float32(scale) * (above + a) / ((above + b) * above), np.float32(1))


_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Matrix code of H.273 -> swscale's code, for the matrices that swscale can apply."""
_CURVES_LIKE_BT709 = (BT601_525, TRANSFER_BT2020, 15)
_FLAGS = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)


def output_colour(source: ColourTags | None, width: int, height: int, encoding: Encoding) -> ColourTags:
    """Return complete tags for an output of width x height pixels.

    Tags that the source lacks follow from its matrix, or from the size (bt709 from 1280 x 720 up, bt601 below).
    source: tags of HDR or wide gamut only if the pixels were not converted to bt709.
    """
    given = source or ColourTags()
    matrix = given.matrix if given.matrix in _SWSCALE_MATRIX else None
    if matrix is None:
        matrix = BT709 if width >= 1280 or height >= 720 else BT601_525
    # BT.601 in its 625-line form (5) has primaries of its own and the transfer function of the 525-line form.
    transfer = {BT2020: TRANSFER_BT2020, 5: BT601_525}.get(matrix, matrix)
    tags = ColourTags(given.primaries or matrix, given.transfer or transfer, matrix, given.range or RANGE_LIMITED)
    if encoding.rgb:
        return replace(tags, matrix=RGB_MATRIX, range=RANGE_FULL)
    return _prores(tags) if encoding.encoder.name == "prores" else tags


def _prores(tags: ColourTags) -> ColourTags:
    """Return the nearest tags that a ProRes frame header can hold (SMPTE RDD 36, section 6.1.1): no full range, and one
    code where H.273 has several for the same curve or matrix."""
    transfer = BT709 if tags.transfer in _CURVES_LIKE_BT709 else tags.transfer
    return replace(tags, transfer=transfer, matrix=BT601_525 if tags.matrix == 5 else tags.matrix, range=RANGE_LIMITED)


class Converter(Protocol):
    """Converts RGB frames to the encoder's format; may buffer frames."""

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield the frames that are ready after `frame`; None ends the stream."""


class MatrixConverter:
    """Converts RGB or RGBA to the encoder's pixel format, and tags the frames."""

    def __init__(self, pix_fmt: str, tags: ColourTags) -> None:
        self._pix_fmt = pix_fmt
        self._tags = tags
        self._reformatter = VideoReformatter()

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield the converted frame; nothing for None."""
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
