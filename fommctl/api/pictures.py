"""Pictures that lie inside other files, for data set adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decode_picture(data: bytes, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB of a PNG, a JPEG or any other picture that fommctl reads, in memory.

    name: what to call it in the InputError that is raised where it is damaged, too large or no picture.
    """
    from fommctl.media.stills import decode_bytes

    return decode_bytes(data, name)
