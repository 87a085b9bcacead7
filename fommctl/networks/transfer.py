"""Motion transfer: whose motion moves the source, and by how much (Siarohin et al. 2019, section 3.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fommctl.networks.motion import Motion


def hull_area(points: Tensor) -> float:
    """Return the area of the convex hull of points (K, 2), by Andrew's monotone chain and the shoelace formula.

    Zero for fewer than three points and for points on a line.
    """
    ordered = np.unique(points.detach().cpu().double().numpy(), axis=0)
    if len(ordered) < 3:
        return 0.0
    hull = np.array(_half_hull(ordered) + _half_hull(ordered[::-1]))
    x, y = hull[:, 0], hull[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _half_hull(ordered: np.ndarray) -> list[np.ndarray]:
    chain: list[np.ndarray] = []
    for point in ordered:
        while len(chain) > 1 and np.linalg.det(np.array([chain[-1] - chain[-2], point - chain[-2]])) <= 0:
            chain.pop()
        chain.append(point)
    return chain[:-1]


def movement_scale(source: Motion, reference: Motion) -> float:
    """Return how much larger the source's keypoint hull is than the reference's, as a length: sqrt of the ratio of
    areas.

    source and reference hold one frame each. 1 where either hull has no area.
    """
    numerator, denominator = hull_area(source.keypoints[0]), hull_area(reference.keypoints[0])
    return float(np.sqrt(numerator / denominator)) if numerator > 0 and denominator > 0 else 1.0


def relative(driving: Motion, reference: Motion, source: Motion, scale: float = 1.0) -> Motion:
    """Return the source's keypoints moved as the driving ones moved since the reference frame (equation 13).

    driving: B frames; reference, source: one frame each.
    p = (p_driving - p_reference) * scale + p_source;  J = J_driving J_reference^-1 J_source.
    Covariances stay those of the driving frames, as Monkey-Net transfers them; codes have no relative form.
    """
    keypoints = (driving.keypoints - reference.keypoints) * scale + source.keypoints
    if driving.jacobians is None or reference.jacobians is None or source.jacobians is None:
        return Motion(keypoints, covariances=driving.covariances)
    jacobians = driving.jacobians @ inverse(reference.jacobians) @ source.jacobians
    return Motion(keypoints, jacobians, driving.covariances)


def adapted_covariances(driving: Tensor, reference: Tensor, source: Tensor) -> Tensor:
    """Return the source's covariances (1, K, 2, 2) changed as the driving ones (B, K, 2, 2) have since the reference
    (1, K, 2, 2): driving reference^-1 source, made symmetric and positive (Monkey-Net, transfer.py)."""
    changed = driving @ inverse(reference) @ source
    values, vectors = torch.linalg.eigh((changed + changed.mT) / 2)
    # Zero and less, which are no variances, become as small a variance as the published script makes of them.
    adapted: Tensor = vectors * torch.where(values > 0, values, 1e-6)[..., None, :] @ vectors.mT
    return adapted


def inverse(matrices: Tensor) -> Tensor:
    """Return the inverse of 2x2 matrices (..., 2, 2) in closed form."""
    a, b, c, d = matrices.flatten(-2).unbind(-1)
    adjugate = torch.stack((d, -b, -c, a), -1).view(matrices.shape)
    inverted: Tensor = adjugate / (a * d - b * c)[..., None, None]
    return inverted
