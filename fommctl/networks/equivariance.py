"""Equivariance: a known warp of the frame must move keypoints and Jacobians alike (section 3.1, equations 7 to 12)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fommctl.networks.grids import identity_grid, sample
from fommctl.networks.layers import full_precision
from fommctl.networks.motion import Motion
from fommctl.networks.transfer import inverse


@dataclass(frozen=True, slots=True)
class ThinPlateTransform:
    """An affine map plus a thin-plate term over control points on a regular grid, one a frame.

    The radial basis takes the L1 distance r: r^2 log(r + 1e-6), as in the published code.
    """

    theta: Tensor
    """(B, 2, 3): the affine map."""
    control_params: Tensor | None
    """(B, 1, N * N): weights of the N x N control points; None for a purely affine map."""

    @classmethod
    def random(
        cls,
        batch: int,
        *,
        sigma_affine: float,
        sigma_tps: float | None,
        points_tps: int | None,
        generator: torch.Generator | None = None,
    ) -> ThinPlateTransform:
        """Draw Gaussian noise around the identity (published: 0.05, 0.005, 5 points a side)."""
        theta = torch.eye(2, 3) + sigma_affine * torch.randn(batch, 2, 3, generator=generator)
        if sigma_tps is None or points_tps is None:
            return cls(theta, None)
        return cls(theta, sigma_tps * torch.randn(batch, 1, points_tps**2, generator=generator))

    def to(self, like: Tensor) -> ThinPlateTransform:
        """Return the transform on the device and in the type of `like`."""
        return ThinPlateTransform(
            self.theta.to(like), None if self.control_params is None else self.control_params.to(like)
        )

    def warp_points(self, points: Tensor) -> Tensor:
        """Transform points (B or 1, M, 2) in [-1, 1]; returns (B, M, 2)."""
        with full_precision(points):
            return self._warped(points)

    def _warped(self, points: Tensor) -> Tensor:
        moved = points @ self.theta[:, :, :2].transpose(1, 2) + self.theta[:, None, :, 2]
        if self.control_params is None:
            return moved
        side = round(self.control_params.shape[-1] ** 0.5)
        controls = identity_grid(side, side, like=points).view(1, 1, -1, 2)
        distance = (points[:, :, None] - controls).abs().sum(-1)
        basis = distance**2 * torch.log(distance + 1e-6)
        return moved + (basis * self.control_params).sum(-1, keepdim=True)

    def warp_frames(self, frames: Tensor, *, align_corners: bool) -> Tensor:
        """Transform frames (B, C, H, W); what lies outside is reflected."""
        height, width = frames.shape[2:]
        grid = self.warp_points(identity_grid(height, width, like=frames).view(1, -1, 2))
        grid = grid.view(frames.shape[0], height, width, 2)
        return sample(frames, grid, align_corners=align_corners, padding="reflection")

    def jacobian(self, points: Tensor) -> Tensor:
        """Return the derivative (B, M, 2, 2) of `warp_points` at points (B, M, 2), differentiable itself."""
        warped = self.warp_points(points)
        x, y = (torch.autograd.grad(warped[..., i].sum(), points, create_graph=True)[0] for i in (0, 1))
        return torch.stack((x, y), -2)


def equivariance_losses(driving: Motion, transformed: Motion, transform: ThinPlateTransform) -> tuple[Tensor, Tensor]:
    """Return mean |p - T(p')| and mean |1 - J^-1 T'(p') J'| (equations 9 and 12), before their weights.

    driving: of the frames.  transformed: of the frames warped by `transform`; its keypoints must carry gradients
    (or be leaves that require them).  The second is zero for zeroth-order models.
    """
    with full_precision(driving.keypoints):
        return _losses(driving, transformed, transform)


def _losses(driving: Motion, transformed: Motion, transform: ThinPlateTransform) -> tuple[Tensor, Tensor]:
    value = (driving.keypoints - transform.warp_points(transformed.keypoints)).abs().mean()
    if driving.jacobians is None or transformed.jacobians is None:
        return value, torch.zeros_like(value)
    expected = transform.jacobian(transformed.keypoints) @ transformed.jacobians
    identity = torch.eye(2, device=expected.device, dtype=expected.dtype)
    return value, (identity - inverse(driving.jacobians) @ expected).abs().mean()
