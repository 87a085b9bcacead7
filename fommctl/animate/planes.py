"""What a compositor gets beside a finished frame: the matte of the animated square, and where each pixel came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fommctl.media.boxes import Box

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.animate.paste import Paste, TurnedPaste
    from fommctl.networks.detail import Detail

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Planes:
    """Planes of one frame, in the source's frame; None where they are not wanted."""

    matte: Floats | None = None
    """(H, W, 1): how much of the animated square shows; where it is 0 the frame is the source."""
    uv: Floats | None = None
    """(H, W, 2), an ST map: from the left to the right and from the bottom to the top of the source, in [0, 1]."""


class PlaneMaker:
    """Makes the planes of frames that are pasted into one source."""

    def __init__(self, paste: Paste | TurnedPaste, box: Box, size: tuple[int, int], mapper: Detail | None) -> None:
        """size: (width, height) of the source.  mapper: where places of the square come from, for the part that `paste`
        shows; None: no map is wanted."""
        self._paste = paste
        self._corner = round(box.left), round(box.top)
        self._size = width, height = size
        self._mapper = mapper
        self._matte = np.zeros((height, width, 1), np.float32)
        self._matte[(*paste.place, 0)] = paste.mask
        self._still = self._coordinates(np.arange(width, dtype=np.float32)[None], np.arange(height)[:, None])

    def __call__(self, flow: Tensor | None, *, absent: bool) -> Planes:
        """flow: of the frame, see `fommctl.api.FlowRenderer`.  absent: does the frame show the source as it is?"""
        matte = np.zeros_like(self._matte) if absent else self._matte
        if self._mapper is None:
            return Planes(matte)
        uv = self._still.copy()
        if flow is not None and not absent:
            columns, rows = (each.cpu().numpy() for each in self._mapper.sources(flow))
            moved = self._coordinates(columns + self._corner[0], rows + self._corner[1])
            np.copyto(uv[self._paste.place], moved, where=(self._paste.mask > 0)[..., None])
        return Planes(matte, uv)

    def _coordinates(self, columns: NDArray[np.floating], rows: NDArray[np.floating] | NDArray[np.integer]) -> Floats:
        """Return ST coordinates of places in pixels."""
        width, height = self._size
        s, t = np.broadcast_arrays((columns + 0.5) / width, 1 - (rows + 0.5) / height)
        return np.stack((s, t), axis=-1).astype(np.float32)
