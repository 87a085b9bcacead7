"""Thin-plate splines (Zhao and Zhang 2022, section 3.2): smooth warps that map given points to others.

A spline is an affine map plus, for each control point c, a weight times r^2 log r^2 with r the distance to c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.api.blocks import full_precision, identity_grid, sample

POINTS = 5
"""Number of control points of each spline."""
_RIDGE = 0.01
"""Added to the diagonal of the linear equations, so that collinear points have a spline too."""


def radial(offsets: Tensor) -> Tensor:
    """Return r^2 log(r^2 + 1e-9), (...), for offsets (..., 2) of length r."""
    squared = offsets.square().sum(-1)
    return squared * torch.log(squared + 1e-9)


@dataclass(frozen=True, slots=True)
class Splines:
    """K thin-plate splines per frame."""

    controls: Tensor
    """(B, K, N, 2): control points."""
    weights: Tensor
    """(B, K, N, 2): weights of each control point in x and y."""
    affine: Tensor
    """(B, K, 2, 3): matrices for columns (x, y, 1)."""

    @classmethod
    def between(cls, controls: Tensor, targets: Tensor) -> Splines:
        """Return the splines that map controls (B, K, N, 2) to targets (B or 1, K, N, 2)."""
        count = controls.shape[2]
        basis = radial(controls[:, :, :, None] - controls[:, :, None])
        plane = F.pad(controls, (0, 1), value=1.0)
        upper = torch.cat((basis, plane), 3)
        lower = F.pad(plane.transpose(2, 3), (0, 3))
        ridge = _RIDGE * torch.eye(count + 3, device=controls.device, dtype=controls.dtype)
        # inv_ex, because inv synchronises with the GPU to check for errors.
        inverse = torch.linalg.inv_ex(torch.cat((upper, lower), 2) + ridge).inverse
        solved = inverse[..., :count] @ targets
        return cls(controls, solved[:, :, :count], solved[:, :, count:].transpose(2, 3))

    def warp(self, places: Tensor) -> Tensor:
        """Map positions (M, 2) by each spline: (B, K, M, 2)."""
        basis = radial(places[:, None] - self.controls[:, :, None])
        rows = torch.cat((basis, F.pad(places, (0, 1), value=1.0).expand(*basis.shape[:3], 3)), 3)
        return rows @ torch.cat((self.weights, self.affine.transpose(2, 3)), 2)


@dataclass(frozen=True, slots=True)
class RandomWarp:
    """The random warps of the equivariance loss, one per frame (section 3.6).

    They have the parameters of FOMM's warps, but the radial basis of the splines in this module.
    """

    theta: Tensor
    """(B, 2, 3): the affine map."""
    weights: Tensor | None
    """(B, 1, N * N): weights of N x N control points on a regular grid, the same in x and y; None for affine maps."""

    def points(self, points: Tensor) -> Tensor:
        """Return the positions (B, M, 2) before the warp of points (B or 1, M, 2) in [-1, 1]."""
        with full_precision(points):
            moved = points @ self.theta[:, :, :2].transpose(1, 2) + self.theta[:, None, :, 2]
            if self.weights is None:
                return moved
            side = round(self.weights.shape[-1] ** 0.5)
            controls = identity_grid(side, side, like=points).view(1, 1, -1, 2)
            return moved + (radial(points[:, :, None] - controls) * self.weights).sum(-1, keepdim=True)

    def frames(self, frames: Tensor) -> Tensor:
        """Warp frames (B, C, H, W), which are reflected at their borders."""
        height, width = frames.shape[2:]
        grid = self.points(identity_grid(height, width, like=frames).view(1, -1, 2))
        grid = grid.view(-1, height, width, 2)
        return sample(frames, grid, align_corners=True, padding="reflection")
