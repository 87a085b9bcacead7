"""Conversion of pictures for detectors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def resize(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a picture (H, W, C) to (height, width, C), bilinear with anti-aliasing."""
    if picture.shape[:2] == (height, width):
        return picture
    # A copy where needed: from_numpy warns about read-only arrays and refuses negative strides. With the batch axis
    # first, torch recognises the channels-last layout and keeps it.
    planes = torch.from_numpy(np.require(picture, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert an RGB picture (H, W, 3) to grey (H, W), with BT.601's weights in 256ths."""
    weighted: NDArray[np.uint16] = picture.astype(np.uint16) @ np.array([77, 150, 29], np.uint16)
    return (weighted >> 8).astype(np.uint8)
