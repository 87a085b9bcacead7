"""Mixed precision: convolutions may run in half precision, geometry never does."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast is off on the device of `like`: keypoints, grids, inverses and losses lose too much in bf16.

    What comes out of a convolution under autocast still has to be made float32 by the caller.
    """
    return torch.autocast(like.device.type, enabled=False)


def single(x: Tensor) -> Tensor:
    """x in float32 where autocast has made it half precision, else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
