"""Pictures to tensors and back: (H, W, 3) uint8 arrays outside, (B, 3, H, W) float32 in [0, 1] inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(pictures: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Pictures of one size as one batch (B, 3, H, W) in [0, 1] on a device."""
    batch = torch.from_numpy(np.stack(pictures))
    if device.type == "cuda":
        batch = batch.pin_memory().to(device, non_blocking=True)
    else:
        batch = batch.to(device)
    return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)


class HostPixels:
    """Rendered frames on their way to the host; on CUDA the copy runs while the next batch is computed."""

    def __init__(self, frames: Tensor) -> None:
        """frames: (B, 3, H, W) in [0, 1], rounded to 8 bits."""
        pixels = (frames * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        self._copied: torch.cuda.Event | None = None
        if pixels.device.type == "cuda":
            self._pixels = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
            self._pixels.copy_(pixels, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        else:
            self._pixels = pixels.cpu()

    def array(self) -> NDArray[np.uint8]:
        """(B, H, W, 3), once it has arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        array: NDArray[np.uint8] = self._pixels.numpy()
        return array
