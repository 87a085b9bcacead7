"""The mask for pasting a square back: a ramp along its edges, with rounded corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RAMP = 16 / 512
"""Width of the ramp, relative to the side."""


def mask(side: int) -> NDArray[np.float32]:
    """Return the opacity of a square of `side` pixels, (side, side) in [0, 1]."""
    place = np.arange(side, dtype=np.float32)
    left = np.clip(1 - np.minimum(place, side - place) / (RAMP * side), 0, 1)
    shown: NDArray[np.float32] = np.clip(1 - np.hypot(left[:, None], left[None]), 0, 1).astype(np.float32)
    return shown
