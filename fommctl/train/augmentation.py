"""Random augmentations of training pairs, the same for all frames of a pair: the published ones, and rigid framing.

The published changes and their order (first-order-model, augmentation.py): flips, rotation, change of size, crop,
jitter of the colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fommctl.networks.grids import identity_grid, sample
from fommctl.networks.losses import ThinPlateTransform
from fommctl.presets.sections import (
    AugmentationParams,
    CropParams,
    FlipParams,
    FramingChange,
    JitterParams,
    ResizeParams,
    RigidParams,
    RotationParams,
    StillParams,
)

Random = np.random.Generator

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in PIL."""


def augment(
    frames: Sequence[NDArray[np.uint8]], params: AugmentationParams | None, random: Random
) -> list[NDArray[np.float32]]:
    """Augment a pair.

    frames: in order of time, each (H, W, 3) uint8, all of the same size. Returns the frames in the order in which to
    use them, as (H', W', 3) float32 in [0, 1]; resizing and cropping change the size.
    """
    batch = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous().float().div_(255)
    if params is not None:
        if params.flip_param is not None:
            batch = _flip(batch, params.flip_param, random)
        if params.framing_param is not None:
            batch = _reframe(batch, params.framing_param, random)
        if params.rotation_param is not None:
            batch = _rotate(batch, params.rotation_param, random)
        if params.resize_param is not None:
            batch = _resize(batch, params.resize_param, random)
        if params.crop_param is not None:
            batch = _crop(batch, params.crop_param, random)
        if params.jitter_param is not None:
            batch = _jitter(batch, params.jitter_param, random)
    return list(batch.permute(0, 2, 3, 1).numpy())


def _flip(frames: Tensor, params: FlipParams, random: Random) -> Tensor:
    """Mirror a pair, or reverse it in time; as published, never both."""
    if random.random() < 0.5 and params.time_flip:
        return frames.flip(0)
    if random.random() < 0.5 and params.horizontal_flip:
        return frames.flip(3)
    return frames


def _reframe(frames: Tensor, params: FramingChange, random: Random) -> Tensor:
    scale = float(np.exp(random.uniform(*np.log(params.scale))))
    right, down = random.uniform(-params.shift, params.shift, size=2)
    return rigid(frames, angle=0.0, scale=scale, shift=(right, down), padding="border")


def _rotate(frames: Tensor, params: RotationParams, random: Random) -> Tensor:
    """Rotate the frames; uncovered corners are black."""
    angle = np.deg2rad(random.uniform(*params.degrees))
    return rigid(frames, angle=angle, scale=1.0, shift=(0.0, 0.0), padding="zeros")


def _resize(frames: Tensor, params: ResizeParams, random: Random) -> Tensor:
    factor = random.uniform(*params.ratio)
    size = [max(1, int(side * factor)) for side in frames.shape[2:]]
    if params.interpolation == "nearest":
        return F.interpolate(frames, size, mode="nearest-exact")
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


def _crop(frames: Tensor, params: CropParams, random: Random) -> Tensor:
    """Crop the frames; frames that are too small are padded on both sides by repeating their border."""
    height, width = params.size
    more_y, more_x = max(0, height - frames.shape[2]), max(0, width - frames.shape[3])
    padded = F.pad(frames, (more_x // 2, (more_x + 1) // 2, more_y // 2, (more_y + 1) // 2), mode="replicate")
    left = int(random.integers(padded.shape[3] - width + 1))
    top = int(random.integers(padded.shape[2] - height + 1))
    return padded[:, :, top : top + height, left : left + width]


def _jitter(frames: Tensor, params: JitterParams, random: Random) -> Tensor:
    changes: list[Callable[[Tensor], Tensor]] = []
    for width, change in (
        (params.brightness, adjust_brightness),
        (params.contrast, adjust_contrast),
        (params.saturation, adjust_saturation),
    ):
        if width > 0:
            factor = random.uniform(max(0.0, 1 - width), 1 + width)
            changes.append(lambda batch, change=change, factor=factor: change(batch, factor))  # type: ignore[misc]
    if params.hue > 0:
        turn = random.uniform(-params.hue, params.hue)
        changes.append(lambda batch: adjust_hue(batch, turn))
    for index in random.permutation(len(changes)):
        frames = changes[index](frames)
    return frames


def adjust_brightness(frames: Tensor, factor: float) -> Tensor:
    """Scale the brightness of frames (B, 3, H, W) in [0, 1] by `factor`."""
    return (frames * factor).clamp_(0, 1)


def adjust_contrast(frames: Tensor, factor: float) -> Tensor:
    """Scale the contrast of frames (B, 3, H, W) in [0, 1] around each frame's mean grey by `factor`."""
    mean = _grey(frames).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, frames, factor).clamp_(0, 1)


def adjust_saturation(frames: Tensor, factor: float) -> Tensor:
    """Scale the saturation of frames (B, 3, H, W) in [0, 1] around each pixel's grey by `factor`."""
    return torch.lerp(_grey(frames), frames, factor).clamp_(0, 1)


def adjust_hue(frames: Tensor, turn: float) -> Tensor:
    """Rotate the hues of frames (B, 3, H, W) in [0, 1] by `turn` of the colour circle; HSV value and saturation are
    kept."""
    red, green, blue = frames.unbind(1)
    value, chroma = frames.amax(1), frames.amax(1) - frames.amin(1)
    part = 1 / chroma.clamp(min=1e-9)
    hue = torch.where(
        value == red,
        (green - blue) * part,
        torch.where(value == green, (blue - red) * part + 2, (red - green) * part + 4),
    )
    # Over the six sectors of the circle, a channel is at its minimum for two, rises, is at its maximum for two, falls.
    sectors = [(hue + (6 * turn + offset)).remainder_(6) for offset in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(at, 4 - at).clamp_(0, 1) for at in sectors], 1)


def _grey(frames: Tensor) -> Tensor:
    red, green, blue = frames.unbind(1)
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]).unsqueeze(1)


def warped(frames: Tensor, params: StillParams, random: Random) -> Tensor:
    """Warp each of the frames (B, 3, H, W) by a mild random transform of its own, with reflection outside."""
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))
    transform = ThinPlateTransform.random(
        len(frames),
        sigma_affine=params.sigma_affine,
        sigma_tps=params.sigma_tps,
        points_tps=params.points_tps,
        generator=generator,
    )
    height, width = frames.shape[2:]
    # The transform is smooth and expensive: compute it at every fourth pixel only.
    coarse = identity_grid(max(2, height // 4), max(2, width // 4), like=frames)
    places = transform.warp_points(coarse.view(1, -1, 2)).view(len(frames), *coarse.shape)
    grid = F.interpolate(places.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=True)
    return sample(frames, grid.permute(0, 2, 3, 1), align_corners=True, padding="reflection")


def moved(frames: Tensor, params: RigidParams, random: Random) -> Tensor:
    """Rotate, scale and shift all frames (B, 3, H, W) alike at random, with reflection outside."""
    angle = np.deg2rad(random.uniform(*params.degrees))
    scale = random.uniform(*params.scale)
    right, down = random.uniform(-params.shift, params.shift, size=2)
    return rigid(frames, angle=angle, scale=scale, shift=(right, down), padding="reflection")


def rigid(frames: Tensor, *, angle: float, scale: float, shift: tuple[float, float], padding: str) -> Tensor:
    """Rotate frames (B, 3, H, W) about their centre, then scale, then shift them.

    angle: radians, counter-clockwise.  shift: to the right and down, in sides of the frame.
    padding: how pixels outside are filled: `zeros`, `border` or `reflection`.
    """
    height, width = frames.shape[2:]
    sides = torch.tensor([width, height], dtype=frames.dtype)
    half = ((sides - 1) / 2).clamp(min=0.5)
    offset = identity_grid(height, width, like=frames) * half - torch.tensor(shift, dtype=frames.dtype) * sides
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    back = torch.tensor([[cos, -sin], [sin, cos]], dtype=frames.dtype)
    grid = (offset @ back.T / half).expand(len(frames), -1, -1, -1)
    return sample(frames, grid, align_corners=True, padding=padding)
