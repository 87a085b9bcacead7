"""Pictures for detectors: resized, or in grey."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def resize(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return picture (H, W, C) -> (height, width, C), bilinear and anti-aliased."""
    if picture.shape[:2] == (height, width):
        return picture
    # torch has no other way to take an array that may be read-only, or run backwards, without a complaint.
    # With the batch axis first it sees pixels with their channels together, and keeps them so.
    planes = torch.from_numpy(np.require(picture, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 3) RGB -> (H, W), by the weights of BT.601 in 256ths."""
    weighted: NDArray[np.uint16] = picture.astype(np.uint16) @ np.array([77, 150, 29], np.uint16)
    return (weighted >> 8).astype(np.uint8)
