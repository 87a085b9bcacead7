"""Motion transfer: whose motion moves the source, and by how much (Siarohin et al. 2019, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Follower:
    """How closely the filter follows."""

    cutoff: float
    """Hz, of what is at rest."""
    distance: float
    """Distance at which the cutoff is twice that."""

    def weight(self, squares: Tensor, elapsed: float) -> Tensor:
        """Return the share of the way to go in one step. squares: of the distance to go, in units of `distance`."""
        step = 2 * math.pi * self.cutoff * elapsed * (1 + squares)
        return step / (1 + step)


# Chosen on 16 clips of talking people, with the built-in model at 256 pixels, where a pixel is 1/128: in still moments
# keypoints shake 0.48 as much as they are detected, and the opening between those of the lips goes 0.92 as far. The
# one-euro filter (Casiez, Roussel, Vogel, CHI 2012), number by number, leaves 0.88 of the opening at that, and what is
# fastest lags further behind.
COMMON = Follower(1.2, 4 / 128)
OWN = Follower(2.0, 1.5 / 128)
JACOBIAN = 0.05
"""Change of a Jacobian, as a share of its norm, that counts as much as the distance of OWN."""
CODES = Follower(3.0, 0.2)
"""Filter of a model's codes, whose unit is not known: the distance is a share of their norm."""


@dataclass(frozen=True, slots=True)
class _State:
    """The smoothed motion of the last frame."""

    common: Tensor
    """(1, 1, 2)."""
    own: Motion
    """One frame, its keypoints less the common motion."""
    time: float


class MotionSmoother:
    """Filters the motions of a clip in their order."""

    def __init__(self) -> None:
        self._state: _State | None = None

    def __call__(self, motion: Motion, times: Sequence[float]) -> Motion:
        """Smooth the motion of B frames, at B times in seconds, later than those of the call before."""
        return Motion.cat([self._next(motion[index : index + 1], time) for index, time in enumerate(times)])

    def to(self, device: torch.device | str) -> MotionSmoother:
        """Return a copy on another device, which goes on where this one stands."""
        copy, state = MotionSmoother(), self._state
        copy._state = state and _State(state.common.to(device), state.own.to(device), state.time)
        return copy

    def _next(self, motion: Motion, time: float) -> Motion:
        # There are no keypoints where codes say what moves; the mean of none is no number.
        common = motion.keypoints.sum(1, keepdim=True) / max(1, motion.keypoints.shape[1])
        seen = own = replace(motion, keypoints=motion.keypoints - common)
        shift = torch.zeros_like(common)
        if self._state is not None:
            elapsed, before = max(time - self._state.time, 1e-6), self._state.common
            weight = COMMON.weight(_square(common - before, 1) / COMMON.distance**2, elapsed)
            shift = torch.lerp(before, common, weight[..., None]) - common
            common = common + shift
            own = _followed(self._state.own, own, elapsed)
        self._state = _State(common, own, time)
        # By what is changed: a keypoint at rest stays what it is to the last bit.
        return replace(own, keypoints=motion.keypoints + ((own.keypoints - seen.keypoints) + shift))


def _followed(before: Motion, motion: Motion, elapsed: float) -> Motion:
    """Take one step from the smoothed motion before towards the one that was detected."""
    squares = _square(motion.keypoints - before.keypoints, 1) / OWN.distance**2
    jacobians, covariances, codes = motion.jacobians, motion.covariances, motion.codes
    if jacobians is not None and before.jacobians is not None:
        change = _square(jacobians - before.jacobians, 2) / _square(before.jacobians, 2).clamp_min(1e-12)
        squares = squares + change / JACOBIAN**2
    # What belongs to a keypoint goes with it, so that place and shape fit each other.
    weight = OWN.weight(squares, elapsed)
    keypoints = torch.lerp(before.keypoints, motion.keypoints, weight[..., None])
    if jacobians is not None and before.jacobians is not None:
        jacobians = torch.lerp(before.jacobians, jacobians, weight[..., None, None])
    if covariances is not None and before.covariances is not None:
        covariances = torch.lerp(before.covariances, covariances, weight[..., None, None])
    if codes is not None and before.codes is not None:
        change = _square(codes - before.codes, 1) / _square(before.codes, 1).clamp_min(1e-12)
        codes = torch.lerp(before.codes, codes, CODES.weight(change / CODES.distance**2, elapsed)[..., None])
    return Motion(keypoints, jacobians, covariances, codes)


def _square(values: Tensor, dimensions: int) -> Tensor:
    """Return the squared norms over the last dimensions."""
    return values.square().flatten(-dimensions).sum(-1)
