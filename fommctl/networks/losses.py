"""The losses of the published training procedure (Siarohin et al. 2019, section 3.4 and supplementary material).

Pictures are (B, C, H, W) in [0, 1]; every loss is a mean, so that it does not depend on the size of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.networks.grids import gaussians, identity_grid, sample
from fommctl.networks.layers import AntiAliasDownsample, full_precision, single
from fommctl.networks.motion import Motion
from fommctl.networks.perceptual import PerceptualNetwork
from fommctl.networks.transfer import inverse

Judged = Mapping[float, tuple[list[Tensor], Tensor]]
"""Result of a multi-scale discriminator: {scale: (features of each block, map)}."""


class ImagePyramid(nn.Module):
    """A picture at several scales, each blurred before it is downsampled."""

    def __init__(self, scales: Sequence[float], channels: int) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.levels = nn.ModuleList(
            nn.Identity() if scale == 1 else AntiAliasDownsample(channels, scale) for scale in self.scales
        )

    def forward(self, pictures: Tensor) -> dict[float, Tensor]:
        with full_precision(pictures):
            return {scale: level(pictures) for scale, level in zip(self.scales, self.levels, strict=True)}


def perceptual_loss(
    network: PerceptualNetwork,
    weights: Sequence[float],
    prediction: Mapping[float, Tensor],
    truth: Mapping[float, Tensor],
) -> Tensor:
    """Return the weighted mean absolute difference of the features at each scale, summed over scales and layers.

    Layers after the last with a weight are not computed. Raises ValueError where there are more weights than layers.
    """
    count = max(number for number, weight in enumerate(weights, start=1) if weight)
    weights, terms = weights[:count], []
    for scale, picture in prediction.items():
        with torch.no_grad():
            wanted = network.first(truth[scale], count)
        for weight, found, target in zip(weights, network.first(picture, count), wanted, strict=True):
            if weight:
                terms.append(weight * (single(found) - single(target)).abs().mean())
    return torch.stack(terms).sum()


def pixel_loss(prediction: Mapping[float, Tensor], truth: Mapping[float, Tensor]) -> Tensor:
    """Return the mean absolute difference at each scale, summed."""
    return torch.stack([(prediction[scale] - truth[scale]).abs().mean() for scale in prediction]).sum()


def generator_adversarial_loss(generated: Judged) -> Tensor:
    """Return the least-squares loss: (1 - D(prediction))^2, summed over scales."""
    return torch.stack([((1 - single(map_)) ** 2).mean() for _, map_ in generated.values()]).sum()


def discriminator_loss(real: Judged, generated: Judged) -> Tensor:
    """Return the least-squares loss: (1 - D(driving))^2 + D(prediction)^2, summed over scales."""
    terms = [((1 - single(real[s][1])) ** 2 + single(generated[s][1]) ** 2).mean() for s in real]
    return torch.stack(terms).sum()


def feature_matching_loss(real: Judged, generated: Judged, weights: Sequence[float]) -> Tensor:
    """Return the weighted mean absolute difference of the discriminator's features, summed over scales and blocks.

    weights: one for each block. The features of the real frame are not detached, as published.
    """
    terms = [
        weight * (single(wanted) - single(found)).abs().mean()
        for scale in real
        for weight, wanted, found in zip(weights, real[scale][0], generated[scale][0], strict=True)
        if weight
    ]
    return torch.stack(terms).sum()


def guidance_loss(keypoints: Tensor, landmarks: Tensor, points: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean absolute distance of the first keypoints from the means of their landmarks.

    keypoints: (B, K, 2) in [-1, 1].  landmarks: (B, N, 2) in [-1, 1]; NaN where none were found, which costs nothing.
    points: for each of the first keypoints the numbers of its landmarks.
    """
    targets = _targets(landmarks, points)
    found = targets.isfinite()
    difference = keypoints[:, : len(points)] - torch.where(found, targets, 0)
    return torch.where(found, difference, 0).abs().mean()


def span_loss(
    keypoints: Tensor, landmarks: Tensor, points: Sequence[Sequence[int]], spans: Sequence[Sequence[int]]
) -> Tensor:
    """Return the mean absolute difference between vectors from keypoint to keypoint and between their landmarks.

    Openings of lips and eyelids are a few pixels; if a keypoint and its neighbour have the same error, the opening is
    still right.
    keypoints, landmarks, points: as in `guidance_loss`.  spans: pairs of numbers of `points`, counted from 0.
    """
    wanted = _vectors(_targets(landmarks, points), spans)
    found = wanted.isfinite()
    difference = _vectors(keypoints, spans) - torch.where(found, wanted, 0)
    return torch.where(found, difference, 0).abs().mean()


def likeness_loss(found: Tensor, wanted: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean absolute difference between the keypoints of prediction and driving frame, plus the same for the
    vectors from keypoint to keypoint.

    found, wanted: (B, K, 2) in [-1, 1], of prediction and driving frame; `wanted` gets no gradient.  spans: as in
    `span_loss`.
    """
    difference = found - wanted.detach()
    loss = difference.abs().mean()
    return loss + _vectors(difference, spans).abs().mean() if spans else loss


def focus_loss(
    prediction: Tensor, truth: Tensor, landmarks: Tensor, points: Sequence[Sequence[int]], deviation: float = 0.1
) -> Tensor:
    """Return the mean absolute difference, weighted by Gaussians around landmarks of the driving frame.

    Lips and eyelids are a few percent of a frame, but what a viewer looks at first.
    prediction, truth: (B, C, H, W).  landmarks, points: as in `guidance_loss`; a frame without landmarks costs nothing.
    deviation: of the Gaussians, where a frame is two wide.
    """
    targets = _targets(landmarks, points)
    far = torch.full_like(targets, 1e3)
    places = torch.where(targets.isfinite(), targets, far)
    height, width = truth.shape[2:]
    weights = gaussians(places, height, width, deviation**2).amax(1, keepdim=True)
    return ((prediction - truth).abs() * weights).mean()


def revealed_loss(prediction: Tensor, truth: Tensor, warped: Tensor) -> Tensor:
    """Return the mean absolute difference, weighted by how far the warped source is from the truth: no warp of the
    source shows what is to be seen there.

    prediction, truth, warped: (B, C, H, W). No gradient reaches the warped source.
    """
    weights = (warped.detach() - truth).abs().mean(1, keepdim=True)
    return ((prediction - truth).abs() * weights).mean()


def _vectors(points: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """Return the vectors (B, S, 2) from the second to the first point of each span, of points (B, K, 2)."""
    first, second = (list(numbers) for numbers in zip(*spans, strict=True))
    return points[:, first] - points[:, second]


def _targets(landmarks: Tensor, points: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean (B, M, 2) of the landmarks of each of M points."""
    return torch.stack([landmarks[:, list(numbers)].mean(1) for numbers in points], 1)


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
