"""Random changes to training pairs, the same for both frames, as the published configurations name them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.sections import AugmentationParams

Picture = NDArray[np.float32]


def augment(
    frames: Sequence[NDArray[np.uint8]], params: AugmentationParams | None, random: np.random.Generator
) -> list[Picture]:
    """frames: (H, W, 3) uint8. Returns (H', W', 3) float32 in [0, 1]."""
    flip = params.flip_param if params else None
    stack = np.stack(frames).astype(np.float32) / np.float32(255)
    if flip is not None:
        if random.random() < 0.5 and flip.time_flip:
            stack = stack[::-1]
        elif random.random() < 0.5 and flip.horizontal_flip:
            stack = stack[:, :, ::-1]
    return list(np.ascontiguousarray(stack))
