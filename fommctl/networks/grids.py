"""Coordinate grids, sampling and Gaussians, shared by all networks.

Coordinates are in [-1, 1], x before y, with the centres of the corner pixels at -1 and 1 (as torch calls it,
align_corners=True), whatever the sampling does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(pictures: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Stack pictures of one size to one batch (B, 3, H, W) in [0, 1] on a device."""
    batch = torch.from_numpy(np.stack(pictures))
    if device.type == "cuda":
        batch = batch.pin_memory().to(device, non_blocking=True)
    else:
        batch = batch.to(device)
    return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)


class HostPixels:
    """Rendered frames on their way to the host; on CUDA the copy runs while the next batch is computed."""

    def __init__(self, frames: Tensor) -> None:
        """Copy frames (B, 3, H, W) in [0, 1] to the host, rounded to 8 bits."""
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
        """Wait for the copy, and return it: (B, H, W, 3) uint8."""
        if self._copied is not None:
            self._copied.synchronize()
        array: NDArray[np.uint8] = self._pixels.numpy()
        return array


KEYPOINT_VARIANCE = 0.01
"""Variance of the Gaussian drawn around a keypoint, in squared coordinates (Siarohin et al. 2019, section 3.2)."""


def pixel_centres(count: int, like: Tensor) -> Tensor:
    """Return the coordinates (count,) of the pixel centres along one axis, on the device and in the type of `like`.

    Rounded as in the published code, which `torch.linspace` is not.
    """
    return 2 * (torch.arange(count, device=like.device, dtype=like.dtype) / max(count - 1, 1)) - 1


def identity_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the coordinates (H, W, 2) of the pixel centres, on the device and in the type of `like`."""
    x, y = pixel_centres(width, like), pixel_centres(height, like)
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)


def gaussians(keypoints: Tensor, height: int, width: int, variance: float = KEYPOINT_VARIANCE) -> Tensor:
    """Return exp(-|z - p|^2 / 2 variance) around each keypoint.

    keypoints: (B, K, 2).  Returns (B, K, H, W) in (0, 1]. Separable, so the exponential is taken of two vectors.
    """
    x, y = pixel_centres(width, keypoints), pixel_centres(height, keypoints)
    along_x = torch.exp((x - keypoints[..., 0:1]) ** 2 / (-2 * variance))
    along_y = torch.exp((y - keypoints[..., 1:2]) ** 2 / (-2 * variance))
    return along_y[..., :, None] * along_x[..., None, :]


def resize_grid(
    grid: Tensor, height: int, width: int, mode: str = "bilinear", *, align_corners: bool | None = None
) -> Tensor:
    """Resize a sampling grid (B, h, w, 2) to (B, H, W, 2), as the published models resize their flow.

    mode, align_corners: see `resize_map`.
    """
    return resize_map(grid.permute(0, 3, 1, 2), height, width, mode, align_corners=align_corners).permute(0, 2, 3, 1)


def resize_map(
    values: Tensor, height: int, width: int, mode: str = "bilinear", *, align_corners: bool | None = None
) -> Tensor:
    """Resize maps (B, C, h, w) to (B, C, H, W).

    mode: `bilinear` or `nearest`.  align_corners: True keeps the centres of the corner pixels in place (`bilinear`
    only), otherwise the outer edges stay.
    """
    if values.shape[2:] == (height, width):
        return values
    return F.interpolate(values, (height, width), mode=mode, align_corners=align_corners)


def between_borders(grid: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Convert a sampling grid (B, h, w, 2) to coordinates with the picture's borders at -1 and 1 (see
    `fommctl.api.FlowRenderer`).

    size: (height, width) of the maps that were sampled with it.  align_corners: as in that sampling.
    """
    if not align_corners:
        return grid
    height, width = size
    return torch.stack((grid[..., 0] * ((width - 1) / width), grid[..., 1] * ((height - 1) / height)), -1)


def sample(values: Tensor, grid: Tensor, *, align_corners: bool, padding: str = "zeros") -> Tensor:
    """Sample values (B, C, h, w) at the positions of grid (B, H, W, 2): (B, C, H, W).

    align_corners: False reproduces the published code on a current torch, where the identity grid then shrinks the
    picture a little; True is what the published weights were trained with.
    """
    return F.grid_sample(values, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
