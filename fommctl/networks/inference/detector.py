"""The keypoint detector, and the small pictures that it and the motion network see."""

from __future__ import annotations

import torch
from torch import Tensor

from fommctl.errors import UsageError
from fommctl.networks.inference.convolutions import Numerics
from fommctl.networks.inference.folding import joined
from fommctl.networks.inference.networks import FastHourglass
from fommctl.networks.keypoints import KeypointDetector, motion_from_maps
from fommctl.networks.layers import AntiAliasDownsample
from fommctl.networks.transfer import Motion


def step_at(step: int, scale: float) -> int:
    """Every how many pixels a network takes one of frames 1 / scale as large as the native ones, of which it takes one
    every `step`. Raises UsageError where that is no whole number."""
    wanted = step / scale
    if wanted < 1 or abs(wanted - round(wanted)) > 1e-6:
        raise UsageError(
            f"this model cannot work at {1 / scale:g} times its native size",
            "Take a whole multiple of the native size.",
        )
    return round(wanted)


def downsample_at(down: AntiAliasDownsample | None, channels: int, scale: float) -> AntiAliasDownsample | None:
    """The anti-alias filter for frames 1 / scale as large as the native ones, whose result has the native size.

    down: that of the native frames; None where the network sees them as they are. Raises UsageError where the result
    would not have every n-th pixel for a whole n.
    """
    if scale == 1:
        return down
    step = step_at(1 if down is None else down.step, scale)
    return None if step == 1 else AntiAliasDownsample(channels, 1 / step)


class SeparableDownsample:
    """`AntiAliasDownsample` as two small matrix products: the filter is the outer product of one line with itself."""

    def __init__(self, down: AntiAliasDownsample | None, device: torch.device) -> None:
        self._step = 1 if down is None else down.step
        self._line = torch.ones(1) if down is None else down.weight[0, 0].sum(0).detach().cpu()
        self._device = device
        self._matrices: dict[int, Tensor] = {}

    def __call__(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, ceil(H / n), ceil(W / n)), channels last."""
        if self._step == 1:
            return frames.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = frames.shape
        rows = self._matrix(height) @ frames.permute(0, 2, 3, 1).flatten(2)
        columns = self._matrix(width) @ rows.view(batch, -1, width, channels)
        return columns.permute(0, 3, 1, 2)

    def _matrix(self, size: int) -> Tensor:
        """(ceil(size / n), size): row i holds the filter line centred on pixel n i, cut at the borders."""
        if size not in self._matrices:
            radius = len(self._line) // 2
            outputs = -(-size // self._step)
            matrix = torch.zeros(outputs, size + 2 * radius)
            for index in range(outputs):
                start = index * self._step
                matrix[index, start : start + len(self._line)] = self._line
            self._matrices[size] = matrix[:, radius : radius + size].contiguous().to(self._device)
        return self._matrices[size]


class FastKeypointDetector:
    """Frames to motions: as `KeypointDetector`, with one convolution for keypoint and Jacobian maps."""

    def __init__(self, detector: KeypointDetector, numerics: Numerics, channels: int, scale: float) -> None:
        self._down = SeparableDownsample(downsample_at(detector.down, channels, scale), numerics.device)
        padding = int(detector.kp.padding[0])
        self._network = FastHourglass(detector.predictor, joined(detector.kp, detector.jacobian), padding, numerics)
        self._dtype = numerics.dtype
        self._count = detector.kp.out_channels
        self._first_order = detector.jacobian is not None
        self._temperature = detector.temperature

    def __call__(self, frames: Tensor) -> Motion:
        """frames: (B, C, H, W) float32 in [0, 1]."""
        maps = self._network(self._down(frames).to(self._dtype)).float().contiguous()
        jacobian_maps = maps[:, self._count :] if self._first_order else None
        return motion_from_maps(maps[:, : self._count], jacobian_maps, self._temperature)
