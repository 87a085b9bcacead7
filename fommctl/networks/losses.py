"""The losses of the published training procedure (Siarohin et al. 2019, section 3.4 and supplementary material).

Pictures are (B, C, H, W) in [0, 1]; every loss is a mean, so that it does not depend on the size of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fommctl.networks.grids import gaussians
from fommctl.networks.layers import AntiAliasDownsample, full_precision, single
from fommctl.networks.perceptual import PerceptualNetwork

Judged = Mapping[float, tuple[list[Tensor], Tensor]]
"""Result of a multi-scale discriminator: {scale: (features of each block, map)}."""


class ImagePyramid(nn.Module):
    """A picture at several scales, each smoothed before it is reduced."""

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
    """Return the weighted mean absolute difference of the features at each scale, summed over scales and layers."""
    terms = []
    for scale, picture in prediction.items():
        with torch.no_grad():
            wanted = network(truth[scale])
        for weight, found, target in zip(weights, network(picture), wanted, strict=True):
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


def focus_loss(
    prediction: Tensor, truth: Tensor, landmarks: Tensor, points: Sequence[Sequence[int]], deviation: float = 0.1
) -> Tensor:
    """Return the mean absolute difference, weighted by Gaussians around where landmarks of the driving frame should be.

    Lips and eyelids are a few percent of a frame, and what a viewer looks at first.
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


def _targets(landmarks: Tensor, points: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean (B, M, 2) of the landmarks of each of M points."""
    return torch.stack([landmarks[:, list(numbers)].mean(1) for numbers in points], 1)
