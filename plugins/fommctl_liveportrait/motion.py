"""LivePortrait's motion of a face: rotation, expression, scale and translation of canonical 3D keypoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.api.blocks import MotionParts, Smoother
from fommctl_liveportrait.motion_extractor import degrees

CUTOFF = 1.5
"""Cut-off frequency of the filter for a face at rest, Hz."""
DISTANCE = 2 / 128
"""Displacement of a keypoint, in its coordinates, at which the cut-off frequency is doubled."""
SCALE_CUTOFF = 0.3
"""Cut-off frequency for the scale, which jitters differently from the head's pose, Hz."""


@dataclass(frozen=True, slots=True)
class FaceMotion(MotionParts):
    """The motion of B faces, whose keypoints are scale * (canonical @ rotation + expression) + translation (Guo et al.
    2024, equation 2)."""

    optional: ClassVar[tuple[str, ...]] = ("openings", "placed")
    rotation: Tensor
    """(B, 3, 3): rotation matrices for row vectors."""
    expression: Tensor
    """(B, K, 3): offsets of the keypoints."""
    scale: Tensor
    """(B, 1)"""
    translation: Tensor
    """(B, 3); z is ignored."""
    canonical: Tensor
    """(B, K, 3): keypoints of the face at rest."""
    openings: Tensor | None = None
    """(B, 3): height over width of left eye, right eye and lips, from landmarks; -1 without landmarks."""
    placed: Tensor | None = None
    """(B, K, 3): the final keypoints, after the transfer to a source."""

    def keypoints(self) -> Tensor:
        """Return the keypoints (B, K, 3) in [-1, 1], x before y before z."""
        if self.placed is not None:
            return self.placed
        shift = F.pad(self.translation[:, None, :2], (0, 1))
        return self.scale[:, None] * (self.canonical @ self.rotation + self.expression) + shift

    def points(self) -> Tensor:
        """See `MotionParts`."""
        return self.keypoints()[..., :2]

    def between(self, other: FaceMotion, share: float) -> FaceMotion:
        """See `MotionParts`; rotations are interpolated along the shortest arc."""
        plain = super(FaceMotion, self).between(other, share)
        return replace(plain, rotation=turned_towards(self.rotation, other.rotation, share))

    def travelled(self, scale: Tensor, angle: Tensor, shift: Tensor) -> FaceMotion:
        """See `MotionParts`."""
        zero = torch.zeros_like(angle)
        turn = rotation_matrices(zero, zero, angle)
        return replace(
            self,
            rotation=self.rotation @ turn,
            expression=self.expression @ turn,
            scale=self.scale * scale[:, None],
            translation=scale[:, None] * (self.translation[:, None] @ turn)[:, 0] + F.pad(shift, (0, 1)),
        )

    def with_landmarks(self, landmarks: Tensor) -> FaceMotion:
        """See `MotionParts`; landmarks determine how far eyes and lips are open."""
        return replace(self, openings=openings(landmarks))

    def smoother(self) -> Smoother:
        """See `MotionParts`."""
        return FaceSmoother()


class FaceSmoother:
    """A low-pass filter that follows fast motion closely, with the same strength for all parameters but the scale."""

    def __init__(self) -> None:
        self._last: FaceMotion | None = None
        self._time = 0.0

    def __call__(self, motion: FaceMotion, times: Sequence[float]) -> FaceMotion:
        """Smooth the motions of B frames at B times in seconds, all later than those of the previous call."""
        return FaceMotion.cat([self._next(motion[index : index + 1], time) for index, time in enumerate(times)])

    def _next(self, motion: FaceMotion, time: float) -> FaceMotion:
        found = motion
        if self._last is not None:
            elapsed = max(time - self._time, 1e-6)
            moved = (motion.keypoints() - self._last.keypoints()).square().sum(-1).mean().item()
            step = 2 * math.pi * elapsed * CUTOFF * (1 + moved / DISTANCE**2)
            slow = 2 * math.pi * elapsed * SCALE_CUTOFF
            found = self._last.between(motion, step / (1 + step))
            found = replace(
                found,
                scale=torch.lerp(self._last.scale, motion.scale, slow / (1 + slow)),
                openings=motion.openings,
            )
        self._last, self._time = found, time
        return found


def face_motion(heads: Mapping[str, Tensor]) -> FaceMotion:
    """Convert the outputs of the motion network's heads, (B, n) by name, to a motion in float32."""
    numbers = {name: values.float() for name, values in heads.items()}
    pitch, yaw, roll = (degrees(numbers[name]) * (math.pi / 180) for name in ("pitch", "yaw", "roll"))
    batch = len(pitch)
    return FaceMotion(
        rotation_matrices(pitch, yaw, roll),
        numbers["exp"].view(batch, -1, 3),
        numbers["scale"],
        numbers["t"],
        numbers["kp"].view(batch, -1, 3),
    )


# By number of landmarks: the landmarks at both ends of the height and of the width of left eye, right eye and lips.
_OPENINGS = {
    68: ((37, 40, 39, 36), (43, 46, 45, 42), (62, 66, 54, 48)),
    203: ((6, 18, 0, 12), (30, 42, 24, 36), (90, 102, 48, 66)),
    468: ((159, 145, 33, 133), (386, 374, 362, 263), (13, 14, 61, 291)),
    478: ((159, 145, 33, 133), (386, 374, 362, 263), (13, 14, 61, 291)),
}


def openings(landmarks: Tensor) -> Tensor:
    """Return height over width of left eye, right eye and lips, (B, 3), from landmarks (B, N, 2); -1 if unknown."""
    ends = _OPENINGS.get(landmarks.shape[1])
    if ends is None:
        return landmarks.new_full((len(landmarks), 3), -1.0)
    points = landmarks[:, torch.tensor(ends, device=landmarks.device)]
    heights, widths = (torch.linalg.vector_norm(points[:, :, at] - points[:, :, at + 1], dim=-1) for at in (0, 2))
    return torch.nan_to_num(heights / (widths + 1e-6), nan=-1.0)


def rotation_matrices(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """Return rotation matrices (B, 3, 3) for row vectors, (Rz(roll) Ry(yaw) Rx(pitch))^T, of angles (B,) in radians."""
    one, zero = torch.ones_like(pitch), torch.zeros_like(pitch)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, -1).view(-1, 3, 3)

    x = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    y = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    z = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    return (z @ y @ x).mT


def turned_towards(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Interpolate between two rotations (B, 3, 3) along the shortest arc, by a share in [0, 1]."""
    if share == 1:
        return other
    return one @ part_of(one.mT @ other, share)


def part_of(rotation: Tensor, share: float) -> Tensor:
    """Return the rotations (B, 3, 3) about the same axes by a share of the angle."""
    if share == 1:
        return rotation
    cosine = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None, None]
    # sin(angle) times the axis's cross-product matrix; undefined at 180 degrees, which no head reaches.
    skew = (rotation - rotation.mT) / 2
    unit = skew / torch.sin(angle).clamp_min(1e-7)
    small = share * angle
    identity = torch.eye(3, device=rotation.device, dtype=rotation.dtype)
    return identity + torch.sin(small) * unit + (1 - torch.cos(small)) * (unit @ unit)
