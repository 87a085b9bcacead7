"""The motion networks for fast inference: keypoints, dense motion, and the warp."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.errors import UsageError
from fommctl.networks.fomm import DenseMotionNetwork, KeypointDetector, motion_from_maps
from fommctl.networks.grids import KEYPOINT_VARIANCE, identity_grid, sample
from fommctl.networks.inference.convolutions import Numerics, joined
from fommctl.networks.inference.networks import FastHourglass
from fommctl.networks.layers import AntiAliasDownsample
from fommctl.networks.motion import Motion
from fommctl.networks.transfer import inverse


def neighbours(
    grid: Tensor, height: int, width: int, *, align_corners: bool, gain: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return which four of the height x width positions each sampling point reads, and with which weights.

    grid: (B, H, W, 2) in [-1, 1], x before y.  gain: (B, 1, H, W), multiplied into the weights.
    Returns indices and weights (B H W, 4); places outside the picture have weight 0, as in zero padding.
    """
    size = _size(width, height, grid.device)
    position = (grid + 1) * ((size - 1) / 2) if align_corners else ((grid + 1) * size - 1) / 2
    # Points far outside (and NaN, where a Jacobian was singular) stay two pixels off the picture.
    position = position.nan_to_num(-2.0).clamp(-2.0, max(height, width) + 1.0).view(-1, 1, 2)
    corner = position.floor()
    fraction = position - corner
    places = torch.cat((corner, corner + 1), 1)
    weights = torch.cat((1 - fraction, fraction), 1) * ((places >= 0) & (places < size))
    places = torch.minimum(places.clamp_(min=0), size - 1).to(torch.int32)
    if gain is not None:
        weights[..., 1] *= gain.reshape(-1, 1)
    indices = places[:, :, None, 1] * width + places[:, None, :, 0]
    return indices.flatten(1), (weights[:, :, None, 1] * weights[:, None, :, 0]).flatten(1)


@cache
def _size(width: int, height: int, device: torch.device) -> Tensor:
    # Kept: while a CUDA graph is recorded nothing may come from the host.
    return torch.tensor((width, height), device=device, dtype=torch.float32)


def weighted_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sum rows of a table (N, C), by indices (M, 4), with weights (M, 4): (M, C)."""
    if table.device.type == "cpu":
        return F.embedding_bag(indices, table, per_sample_weights=weights.to(table.dtype), mode="sum")
    return (table[indices.long()] * weights.to(table.dtype)[..., None]).sum(1)


@dataclass(frozen=True, slots=True)
class MotionSource:
    """The source as the motion network needs it, at that network's resolution (h, w)."""

    small: Tensor
    """(1, C, h, w): the source, downsampled."""
    still: Tensor
    """(1, h, w, C): the source under the background's motion, the identity."""
    heatmaps: Tensor
    """(1, h, w, K): Gaussians around the source's keypoints."""
    places: Tensor
    """(h w, 3): x, y, 1 of every pixel."""


def heatmaps_last(keypoints: Tensor, height: int, width: int, variance: float = KEYPOINT_VARIANCE) -> Tensor:
    """Return `gaussians` of keypoints (B, K, 2) with the keypoint as the last dimension: (B, H, W, K)."""
    x = torch.linspace(-1, 1, width, device=keypoints.device)[:, None]
    y = torch.linspace(-1, 1, height, device=keypoints.device)[:, None]
    along_x = torch.exp((x - keypoints[:, None, :, 0]) ** 2 / (-2 * variance))
    along_y = torch.exp((y - keypoints[:, None, :, 1]) ** 2 / (-2 * variance))
    return along_y[:, :, None] * along_x[:, None]


def affine_maps(source: Motion, driving: Motion) -> Tensor:
    """Return the parts' motions (equation 4) as matrices (B, K, 3, 2) that map a row (x, y, 1) to a position in the
    source."""
    batch, count = driving.keypoints.shape[:2]
    if driving.jacobians is None or source.jacobians is None:
        linear = torch.eye(2, device=driving.keypoints.device).expand(batch, count, 2, 2)
    else:
        linear = (source.jacobians @ inverse(driving.jacobians)).transpose(2, 3)
    offset = source.keypoints[:, :, None] - driving.keypoints[:, :, None] @ linear
    return torch.cat((linear, offset), 2)


class FastDenseMotion:
    """`DenseMotionNetwork` with its hourglass input ordered by kind, and a mask that weighs affine maps, not grids."""

    def __init__(self, network: DenseMotionNetwork, numerics: Numerics, channels: int, scale: float) -> None:
        num_kp = network.mask.out_channels - 1
        self._down = SeparableDownsample(downsample_at(network.down, channels, scale), numerics.device)
        self._align_corners = network.align_corners
        self._numerics = numerics
        self._occludes = network.occlusion is not None
        # Published order: for each part, background first, its heatmap and its colours. Here: the heatmaps (but that
        # of the background, which is always zero), the moving parts colour by colour, the background's colours.
        parts = torch.arange(num_kp + 1)[:, None] * (channels + 1) + torch.arange(channels + 1)
        order = torch.cat((parts[1:, 0], parts[1:, 1:].t().flatten(), parts[0, 1:]))
        self._network = FastHourglass(network.hourglass, joined(network.mask, network.occlusion), 3, numerics, order)
        self._background = torch.tensor([[[[1.0, 0], [0, 1], [0, 0]]]], device=numerics.device)

    def encode_source(self, frame: Tensor, motion: Motion) -> MotionSource:
        """Prepare a source.  frame: (1, C, H, W) in [0, 1]; motion: its own."""
        small = self._down(frame).contiguous()
        height, width = small.shape[2:]
        grid = identity_grid(height, width, like=small)
        still = sample(small, grid[None], align_corners=self._align_corners)
        places = torch.cat((grid, torch.ones_like(grid[..., :1])), 2).view(-1, 3)
        return MotionSource(small, still.permute(0, 2, 3, 1), heatmaps_last(motion.keypoints, height, width), places)

    def __call__(self, source: MotionSource, source_motion: Motion, driving: Motion) -> tuple[Tensor, Tensor | None]:
        """Return the flow (B, h, w, 2) and, where the model estimates it, the occlusion (B, 1, h, w)."""
        height, width = source.small.shape[2:]
        batch = len(driving)
        maps = affine_maps(source_motion, driving)
        features = self._input(source, driving, maps)
        out = self._network(features).permute(0, 2, 3, 1).float()
        last = out.shape[3] - self._occludes
        mask = out[..., :last].softmax(3).flatten(1, 2)
        every = torch.cat((self._background.expand(batch, -1, -1, -1), maps), 1)
        blended = (mask @ every.flatten(2)).view(batch, -1, 3, 2)
        flow = (source.places[:, :, None] * blended).sum(2).view(batch, height, width, 2)
        return flow, out[..., last:].sigmoid().permute(0, 3, 1, 2) if self._occludes else None

    def _input(self, source: MotionSource, driving: Motion, maps: Tensor) -> Tensor:
        """Return the hourglass input (B, K + C K + C, h, w) in its own order."""
        height, width = source.small.shape[2:]
        batch, count = driving.keypoints.shape[:2]
        heatmaps = heatmaps_last(driving.keypoints, height, width) - source.heatmaps
        # All grids end to end along the height: one call, and the source is not repeated for every part.
        grids = (source.places @ maps).view(batch, count * height, width, 2)
        parts = sample(source.small.expand(batch, -1, -1, -1), grids, align_corners=self._align_corners)
        moved = parts.view(batch, -1, height, width).permute(0, 2, 3, 1)
        still = source.still.expand(batch, -1, -1, -1)
        return torch.cat((heatmaps, moved, still), 3).to(self._numerics.dtype).permute(0, 3, 1, 2)


def step_at(step: int, scale: float) -> int:
    """Return the stride in pixels at which a network reads frames 1 / scale as large as the native ones, which it reads
    with the stride `step`. Raises UsageError if it is not a whole number."""
    wanted = step / scale
    if wanted < 1 or abs(wanted - round(wanted)) > 1e-6:
        raise UsageError(
            f"this model does not support {1 / scale:g} times its native size",
            "Use a whole multiple of the native size.",
        )
    return round(wanted)


def downsample_at(down: AntiAliasDownsample | None, channels: int, scale: float) -> AntiAliasDownsample | None:
    """Return the anti-alias filter for frames 1 / scale as large as the native ones, whose result has the native size.

    down: the filter for native frames; None if the network reads them unfiltered. Raises UsageError if the result would
    not be every n-th pixel for a whole n.
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
        """Reduce (B, C, H, W) to (B, C, ceil(H / n), ceil(W / n)), channels last."""
        if self._step == 1:
            return frames.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = frames.shape
        rows = self._matrix(height) @ frames.permute(0, 2, 3, 1).flatten(2)
        columns = self._matrix(width) @ rows.view(batch, -1, width, channels)
        return columns.permute(0, 3, 1, 2)

    def _matrix(self, size: int) -> Tensor:
        """Return (ceil(size / n), size): row i holds the filter line centred on pixel n i, cut at the borders."""
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
    """`KeypointDetector` with one convolution for keypoint and Jacobian maps: frames to motions."""

    def __init__(self, detector: KeypointDetector, numerics: Numerics, channels: int, scale: float) -> None:
        self._down = SeparableDownsample(downsample_at(detector.down, channels, scale), numerics.device)
        padding = int(detector.kp.padding[0])
        self._network = FastHourglass(detector.predictor, joined(detector.kp, detector.jacobian), padding, numerics)
        self._dtype = numerics.dtype
        self._count = detector.kp.out_channels
        self._first_order = detector.jacobian is not None
        self._temperature = detector.temperature

    def __call__(self, frames: Tensor) -> Motion:
        """Detect the motion of frames (B, C, H, W), float32 in [0, 1]."""
        maps = self._network(self._down(frames).to(self._dtype)).float().contiguous()
        jacobian_maps = maps[:, self._count :] if self._first_order else None
        return motion_from_maps(maps[:, : self._count], jacobian_maps, self._temperature)
