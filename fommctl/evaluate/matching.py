"""Matches points of true frames to predicted frames, by the patches around them.

With known true keypoints no detector is needed. The patch around a true point is searched for in the prediction by
normalised cross-correlation over red, green and blue (Lewis 1995), on frames reduced to at most LARGEST_SIDE pixels.
The position is then refined to subpixels, level by level, by Gauss-Newton steps on the normalised patches (Lucas and
Kanade 1981; fixed template as in Baker and Matthews 2004). A parabola through the correlation's peak would be simpler,
but is biased for asymmetrical peaks, so that even the truth would not be found exactly.

Shapes: N frames, K points, patches of P x P pixels. Coordinates are in pixels, 0 at the centre of the first one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample

PATCH = 1 / 16
"""Distance from a patch's centre to its border, in sides of the frame: 9 x 9 pixels for 64, 33 x 33 for 256."""
SEARCH = 0.2
"""Largest distance of the search from the true position along each axis, in sides of the frame."""
CORRELATION = 0.7
"""Least correlation of the best match with the truth; below it a point counts as not found.

Measured on the synthetic data set at 64 pixels: in frames blurred by 1.5 pixels, 86 to 100 % of the points are found,
none more than 3 pixels off; in frames of another identity, 0 to 5 %. With 0.6, up to 17 % of the latter are found; with
0.8, as few as 67 % of the former."""
UNSURE = 0.1
"""Largest displacement in pixels by noise of one level of 255; a patch with more has too little texture to match."""
LARGEST_SIDE = 96
"""Largest side of the frames to search; larger frames are halved."""
_LEAST_PATCH, _LEAST_SEARCH = 3, 2
_STEPS = 6
_STRAY = 1.5
"""Largest displacement by refinement, in pixels of its level, to which larger ones are limited."""
_CONTRAST = 0.5 / 255
"""Root mean square of a patch with only rounding noise."""
_NEARER = 1e-4
"""Cost at the border of the search, so that the nearest of equal matches is chosen."""
_BLOCK = 16
"""Number of frames processed at a time."""


def find_again(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Match points of the true frames to the predicted ones.

    prediction, truth: (N, H, W, 3) uint8.  points: (N, K, 2) in pixels of the truth, x before y, NaN for hidden ones.
    Returns points (N, K, 2) in the prediction and in the truth. Points that are hidden, outside the picture or without
    texture (see UNSURE) are NaN in both; points that are not found (see CORRELATION) are NaN in the prediction.
    """
    found, known = np.full(points.shape, np.nan), np.full(points.shape, np.nan)
    for first in range(0, len(points), _BLOCK):
        rows = slice(first, first + _BLOCK)
        found[rows], known[rows] = _find(prediction[rows], truth[rows], points[rows])
    return found, known


@torch.inference_mode()
def _find(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    height, width = truth.shape[1:3]
    if not points.shape[1] or not len(points):
        return points, points
    last = np.array((width - 1, height - 1), np.float64)
    inside = np.asarray(((points >= 0) & (points <= last)).all(-1))
    levels = _levels(_picture(prediction), _picture(truth), torch.from_numpy(np.where(inside[..., None], points, 0.0)))
    moved = torch.zeros_like(levels[-1].points)
    correlation, lost = torch.zeros(inside.shape), torch.zeros(inside.shape, dtype=torch.bool)
    for number, level in reversed(list(enumerate(levels))):
        patches = _Patches.of(level)
        if number == len(levels) - 1:
            moved, lost = _search(level, patches)
        moved, correlation = _refine(level, patches, moved)
        if number:
            moved = moved * 2
    place = (levels[0].points + moved).double().numpy()
    usable = inside & patches.findable.numpy()
    matched = usable & (correlation.numpy() >= CORRELATION) & ~lost.numpy()
    matched &= ((place >= -0.5) & (place <= last + 0.5)).all(-1)
    exact = points + moved.double().numpy()
    return np.where(matched[..., None], exact, np.nan), np.where(usable[..., None], points, np.nan)


@dataclass(frozen=True, slots=True)
class _Level:
    """Frames and points at one size."""

    prediction: Tensor
    """(N, 3, H, W) in [0, 1]."""
    truth: Tensor
    """(N, 3, H, W) in [0, 1]."""
    points: Tensor
    """(N, K, 2), rounded to whole pixels."""

    @property
    def side(self) -> int:
        return max(self.truth.shape[2:])


def _picture(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def _levels(prediction: Tensor, truth: Tensor, points: Tensor) -> list[_Level]:
    """Return the levels of the pyramid, the full size first."""
    levels = [_Level(prediction, truth, points.round().float())]
    while levels[-1].side > LARGEST_SIDE and min(levels[-1].truth.shape[2:]) >= 4 * _LEAST_PATCH:
        last = levels[-1]
        points = (points + 0.5) / 2 - 0.5
        levels.append(_Level(avg_pool2d(last.prediction, 2), avg_pool2d(last.truth, 2), points.round().float()))
    return levels


@dataclass(frozen=True, slots=True)
class _Patches:
    """Normalised patches of the truth around its points, with their derivatives."""

    template: Tensor
    """(N, K, 3 * P * P), with mean 0 per colour and length 1."""
    slopes: Tensor
    """(N, K, 3 * P * P, 2): derivative of the template by x and y, per pixel, orthogonal to the template."""
    curvature: Tensor
    """(N, K, 2, 2): inverse of slopes.T @ slopes."""
    findable: Tensor
    """(N, K) bool: whether the patch has enough texture (see UNSURE)."""
    radius: int

    @classmethod
    def of(cls, level: _Level) -> _Patches:
        radius = max(_LEAST_PATCH, round(level.side * PATCH))
        wide = _sampled(level.truth, level.points, radius + 1)
        down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
        right = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
        gradient = torch.stack([_centred(right), _centred(down)], -1)
        template = _centred(wide[..., 1:-1, 1:-1])
        length = template.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        # Noise of one level displaces a patch by 1 / sqrt(least eigenvalue) pixels along its weakest direction.
        weakest = torch.linalg.eigvalsh(255**2 * gradient.mT @ gradient)[..., 0]
        template = template / length
        slopes = gradient / length[..., None]
        slopes = slopes - template[..., None] * (template[..., None] * slopes).sum(-2, keepdim=True)
        hessian = slopes.mT @ slopes + 1e-6 * torch.eye(2)
        return cls(template, slopes, torch.linalg.inv(hessian), weakest >= UNSURE**-2, radius)


def _search(level: _Level, patches: _Patches) -> tuple[Tensor, Tensor]:
    """Return the displacement (N, K, 2) in whole pixels from each point to its best match in the prediction, and
    whether (N, K) it is at the border of the search, so that the true match is probably outside."""
    radius, reach = patches.radius, max(_LEAST_SEARCH, round(level.side * SEARCH))
    size = 2 * radius + 1
    n, k = level.points.shape[:2]
    windows = _cut(level.prediction, level.points, radius + reach)
    templates = patches.template.view(n * k, 3, size, size)
    products = conv2d(windows.view(1, -1, *windows.shape[-2:]), templates, groups=n * k)[0]
    flat = windows.flatten(0, 1)
    spread = (avg_pool2d(flat**2, size, 1) - avg_pool2d(flat, size, 1) ** 2).sum(1).clamp(min=0) * size**2
    scores = torch.where(spread > 3 * (size * _CONTRAST) ** 2, products / spread.clamp(min=1e-12).sqrt(), -1.0)
    steps = torch.arange(-reach, reach + 1).float()
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).view(-1, 2)
    places = level.points.view(n * k, 1, 2) + offsets
    last = torch.tensor(level.truth.shape[:1:-1]) - 1.0
    outside = ((places < 0) | (places > last)).any(-1)
    scores = scores.flatten(1) - _NEARER * (offsets / reach).square().sum(-1)
    best = scores.masked_fill(outside, -2.0).argmax(-1)
    moved = offsets[best].view(n, k, 2)
    at_border = ((level.points + moved == 0) | (level.points + moved == last)) & (moved != 0)
    return moved, (at_border | (moved.abs() == reach)).any(-1)


def _refine(level: _Level, patches: _Patches, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best displacement near `start`, (N, K, 2) in pixels from each point, and its correlation (N, K) with
    the truth."""
    moved, best, highest = start, start, torch.full(start.shape[:2], -1.0)
    for _ in range(_STEPS):
        patch = _centred(_sampled(level.prediction, level.points + moved, patches.radius))
        length = patch.norm(dim=-1, keepdim=True)
        flat = length <= _CONTRAST * patch.shape[-1] ** 0.5
        patch = torch.where(flat, 0.0, patch / length.clamp(min=1e-9))
        correlation = (patch * patches.template).sum(-1)
        better = correlation > highest
        best, highest = torch.where(better[..., None], moved, best), torch.where(better, correlation, highest)
        slope = patches.slopes.mT @ (patch - patches.template)[..., None]
        step = (patches.curvature @ slope)[..., 0]
        moved = start + (moved - step - start).clamp(-_STRAY, _STRAY)
    return best, highest


def _centred(patches: Tensor) -> Tensor:
    """Flatten patches (N, K, 3, P, P) to (N, K, 3 * P * P), without the mean of each colour."""
    return (patches - patches.mean((-2, -1), keepdim=True)).flatten(2)


def _cut(frames: Tensor, points: Tensor, radius: int) -> Tensor:
    """Cut patches (N, K, 3, P, P) around whole pixels; the picture's border is repeated outside."""
    height, width = frames.shape[2:]
    steps = torch.arange(-radius, radius + 1)
    columns = (points[..., 0, None].long() + steps).clamp(0, width - 1)
    rows = (points[..., 1, None].long() + steps).clamp(0, height - 1)
    numbers = torch.arange(len(frames)).view(-1, 1, 1, 1)
    pixels = frames.permute(0, 2, 3, 1)[numbers, rows[..., :, None], columns[..., None, :]]
    return pixels.permute(0, 1, 4, 2, 3).contiguous()


def _sampled(frames: Tensor, points: Tensor, radius: int) -> Tensor:
    """Sample patches (N, K, 3, P, P) around subpixel positions, by cubic interpolation."""
    n, k = points.shape[:2]
    size = 2 * radius + 1
    steps = torch.arange(-radius, radius + 1).float()
    places = points[:, :, None, None] + torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    last = torch.tensor(frames.shape[:1:-1]) - 1.0
    grid = (2 * places / last - 1).view(n, k * size, size, 2)
    samples = grid_sample(frames, grid, "bicubic", "border", align_corners=True)
    return samples.view(n, 3, k, size, size).transpose(1, 2)
