"""HDR (PQ, HLG) and wide gamut (BT.2020, P3) to SDR bt709, in display light.

The chain: code values -> light of the display in units of reference white (203 cd/m2, ITU-R BT.2408) -> bt709
primaries -> one tone curve on the largest component, so that hues stay -> inverse of the BT.1886 display (gamma 2.4).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fommctl.media.colour import (
    BT2020,
    PRIMARIES_P3_D65,
    PRIMARIES_P3_DCI,
    TRANSFER_HLG,
    TRANSFER_PQ,
    ColourTags,
)

Float = NDArray[np.float32]

REFERENCE_WHITE = 203.0
"""cd/m2 of diffuse white in HDR programmes (ITU-R BT.2408, table 1)."""
DEFAULT_PEAK = 1000.0
"""cd/m2 assumed where the file does not state its brightest pixel; also the nominal peak of HLG."""
SDR_GAMMA = 2.4
_KNEE = 0.5
_CODES = 65536
_ENCODE_STEPS = 4096

_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    PRIMARIES_P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    PRIMARIES_P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""x, y of red, green and blue (ITU-T H.273, table 2); all with the D65 white point here."""
_D65 = (0.3127, 0.3290)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)


def pq_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """cd/m2 of a PQ signal in [0, 1] (SMPTE ST 2084, equation 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = np.power(signal, 1 / m2)
    return np.asarray(10000 * np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1))


def hlg_scene_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scene light in [0, 1] of an HLG signal in [0, 1] (ITU-R BT.2100, table 5, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in _CHROMATICITIES[primaries]]).T
    x, y = _D65
    white = np.array([x / y, 1.0, (1 - x - y) / y])
    return np.asarray(columns * np.linalg.solve(columns, white))


@cache
def to_bt709(primaries: int) -> Float:
    """(3, 3) matrix from linear light in `primaries` to linear light in bt709's."""
    return np.linalg.solve(_to_xyz(1), _to_xyz(primaries)).astype(np.float32)


@cache
def _light_table(transfer: int | None) -> Float:
    """Light of each 16-bit code: in units of reference white, or of scene light for HLG."""
    signal = np.arange(_CODES) / (_CODES - 1)
    if transfer == TRANSFER_PQ:
        return (pq_light(signal) / REFERENCE_WHITE).astype(np.float32)
    if transfer == TRANSFER_HLG:
        return hlg_scene_light(signal).astype(np.float32)
    return (signal**SDR_GAMMA).astype(np.float32)


@cache
def _signal_table() -> NDArray[np.uint8]:
    """8-bit bt709 signal by the square root of the light, which spends its steps where the eye needs them."""
    light = (np.arange(_ENCODE_STEPS) / (_ENCODE_STEPS - 1)) ** 2
    return np.rint(255 * light ** (1 / SDR_GAMMA)).astype(np.uint8)


class ToneMap:
    """Turns R'G'B' of one clip into SDR bt709; the curve is the same for every frame, so brightness never pumps."""

    def __init__(self, tags: ColourTags, peak: float | None = None) -> None:
        """peak: brightest light of the clip in cd/m2, where its metadata states one."""
        self.transfer = tags.transfer
        self.primaries = tags.primaries if tags.primaries in _CHROMATICITIES else (BT2020 if tags.hdr else 1)
        brightest = DEFAULT_PEAK if tags.transfer == TRANSFER_HLG else min(max(peak or DEFAULT_PEAK, 250.0), 10000.0)
        self.peak = brightest / REFERENCE_WHITE if tags.hdr else 1.0

    def __call__(self, codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """codes: (H, W, 3) R'G'B', full range of 16 bits.  Returns (H, W, 3) uint8 R'G'B' of bt709, gamma 2.4."""
        light = np.take(_light_table(self.transfer), codes)
        if self.transfer == TRANSFER_HLG:
            # The system gamma of a 1,000 cd/m2 display (BT.2100, table 5, OOTF).
            luminance = np.maximum(light @ _BT2020_LUMA, np.float32(1e-6))
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
        """Factor that brings (H, W) light in [0, peak] to [0, 1]: none up to the knee, a Moebius curve above it."""
        knee, peak = _KNEE, self.peak
        a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
        b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
        scale = (b**2 + 2 * b * knee + knee**2) / (b - a)
        above = np.maximum(brightest, np.float32(knee))
        return np.where(brightest > knee, np.float32(scale) * (above + a) / ((above + b) * above), np.float32(1))
