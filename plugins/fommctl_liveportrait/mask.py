"""The mask with which a square is pasted back: a ramp along its edges, round at its corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RAMP = 16 / 512
"""Width of the ramp, in sides."""


def mask(side: int) -> NDArray[np.float32]:
    """Return how much of a square shows, (side, side) in [0, 1]."""
    place = np.arange(side, dtype=np.float32)
    left = np.clip(1 - np.minimum(place, side - place) / (RAMP * side), 0, 1)
    shown: NDArray[np.float32] = np.clip(1 - np.hypot(left[:, None], left[None]), 0, 1).astype(np.float32)
    return shown
