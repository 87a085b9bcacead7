"""HEIF stills (HEIC): told from films by their brand, read whole by libheif, HDR ones brought to SDR.

A photo of a telephone is a grid of tiles, each a stream of its own for a video reader, which also sees no profile.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fommctl.media.colour import ColourTags, read_tags
from fommctl.media.tonemap import ToneMap

FORMAT = "HEIF"
"""Pillow's name of the format."""
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"mif3"})
"""Of ISO/IEC 23008-12: a picture is what the file is for. Sequences (`hevc`, `msf1`) are films."""
_OTHERS = frozenset({b"avif", b"avis"})
"""Brands of pictures that Pillow reads itself."""
_LONGEST_BOX = 1024


def is_heif(path: Path) -> bool:
    """Whether the file calls itself a still of this kind."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_BOX)
    if head[4:8] != b"ftyp" or head[8:12] not in _STILL_BRANDS:
        return False
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return _OTHERS.isdisjoint(head[at : at + 4] for at in range(16, length - 3, 4))


@cache
def register() -> None:
    """Let Pillow open HEIF, without the thumbnails and depth maps beside the picture."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def tags_of(image: Image.Image) -> ColourTags | None:
    """What an opened file says about its colours where no ICC profile says it."""
    stated = image.info.get("nclx_profile")
    if image.info.get("icc_profile") or not stated:
        return None
    codes = (stated[name] for name in ("color_primaries", "transfer_characteristics", "matrix_coefficients"))
    primaries, transfer, matrix = map(int, codes)
    return read_tags(primaries, transfer, matrix, 0)


def tone_mapped(path: Path, tags: ColourTags) -> NDArray[np.uint8]:
    """(H, W, 3) sRGB of a still in PQ, HLG or a wide gamut."""
    from pillow_heif import open_heif

    heif = open_heif(path, convert_hdr_to_8bit=False)
    codes = np.asarray(heif)[..., :3]
    deep = codes if codes.dtype == np.uint16 else codes.astype(np.uint16) * 257
    return ToneMap(tags)(np.ascontiguousarray(deep))
