"""Rigid textured layers, which scenes consist of.

Picture coordinates are those of the models, in [-1, 1], x before y, with the centres of the corner pixels at -1 and 1.
A layer has local coordinates, in which it is constant; its pose maps them to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pose = tuple[Floats, Floats]
"""Centre (2,) and matrix (2, 2) of a similarity: picture coordinates are local ones @ matrix.T + centre."""

SHAPE_KEYPOINTS = np.array([(0.0, 0.0), (0.7, 0.0), (0.0, 0.7)])
"""Keypoints of a shape in local coordinates, in which it is the unit disc or the square of half side 1."""
SHAPE_EDGE = 0.12
"""Width of a shape's soft edge in local coordinates; soft, so that motion below one pixel is visible."""
LIMB_EDGE = 0.4
"""Width of a limb's soft edge in local coordinates, whose unit is much smaller."""


class Layer(Protocol):
    """A rigid layer."""

    @property
    def texture(self) -> Waves:
        """Colours, in local coordinates."""
        ...

    @property
    def keypoints(self) -> Floats:
        """(K, 2) in local coordinates."""
        ...

    @property
    def edge(self) -> float:
        """Width of the soft edge, in local coordinates."""
        ...

    @property
    def extent(self) -> Floats:
        """Left, top, right and bottom of the bounding box in local coordinates, including the edge, (4,)."""
        ...

    def radius(self, own: Floats) -> Floats:
        """Return the relative distance (...,) of points `own` (..., 2) in local coordinates: below 1 inside, 1 at the
        outline."""
        ...

    def pose(self, time: float) -> Pose:
        """Return the pose at `time`; motion has a period of 1."""
        ...


@dataclass(frozen=True)
class Waves:
    """A colour texture: the sum of a few plane waves."""

    frequencies: Floats
    """(N, 2), in radians per unit."""
    phases: Floats
    """(N,)"""
    colours: Floats
    """(N, 3)"""
    base: Floats
    """(3,)"""

    @classmethod
    def drawn(cls, random: np.random.Generator, frequency: float, contrast: float) -> Waves:
        """Draw six waves around a random base colour.

        frequency: standard deviation in radians per unit.  contrast: largest amplitude of a wave.
        """
        return cls(
            frequencies=random.normal(0, frequency, (6, 2)),
            phases=random.uniform(0, 2 * np.pi, 6),
            colours=random.uniform(-contrast, contrast, (6, 3)),
            base=random.uniform(0.25, 0.75, 3),
        )

    def at(self, points: Floats) -> Floats:
        """Return colours (..., 3) in [0, 1] at points (..., 2)."""
        return np.clip(self.base + np.cos(points @ self.frequencies.T + self.phases) @ self.colours, 0, 1)


@dataclass(frozen=True)
class Shape:
    """A disc or square on a smooth path."""

    texture: Waves
    square: bool
    size: float
    """Mean radius or half side."""
    centre: Floats
    """(2,): mean position."""
    swing: Floats
    """(2,): amplitudes of the motion of the centre."""
    turn: float
    """Amplitude of the rotation, radians."""
    growth: float
    """Amplitude of the logarithm of the size."""
    phases: Floats
    """(4,): phases of x, y, rotation and size, radians."""

    edge = SHAPE_EDGE
    keypoints = SHAPE_KEYPOINTS
    extent = np.array((-1, -1, 1, 1)) * (1 + SHAPE_EDGE)

    def radius(self, own: Floats) -> Floats:
        distance: Floats = np.abs(own).max(-1) if self.square else np.hypot(own[..., 0], own[..., 1])
        return distance

    def pose(self, time: float) -> Pose:
        wave = np.sin(2 * np.pi * time + self.phases)
        scale = self.size * np.exp(self.growth * wave[3])
        return self.centre + self.swing * wave[:2], scale * rotation(self.turn * wave[2])


@dataclass(frozen=True)
class Limb:
    """A bar with round ends that swings about a joint on its parent.

    The local unit is half its width, with the joint at (0, 0) and the other end at (length, 0). With a length of 0, it
    is a disc.
    """

    texture: Waves
    parent: Limb | None
    joint: Floats
    """(2,): position of the joint in the parent's local coordinates, or in the picture without a parent."""
    half_width: float
    """Half of the width, in picture coordinates."""
    length: float
    """Length in half widths."""
    angle: float
    """Mean angle in radians from the parent's direction or, without a parent, from the x axis towards y (downwards)."""
    swing: float
    """Amplitude of the rotation, radians."""
    phase: float
    """Phase of rotation and sway, radians."""
    sway: Floats
    """(2,): amplitudes of the motion of the joint, for limbs without a parent."""

    edge = LIMB_EDGE

    @property
    def keypoints(self) -> Floats:
        """(2, 2): the joint and the other end, in local coordinates."""
        return np.array([(0.0, 0.0), (self.length, 0.0)])

    @property
    def extent(self) -> Floats:
        reach = 1 + LIMB_EDGE
        return np.array((-reach, -reach, self.length + reach, reach))

    def radius(self, own: Floats) -> Floats:
        distance: Floats = np.hypot(own[..., 0] - np.clip(own[..., 0], 0, self.length), own[..., 1])
        return distance

    def pose(self, time: float) -> Pose:
        position, angle = self._placed(time)
        return position, rotation(angle) * self.half_width

    def _placed(self, time: float) -> tuple[Floats, float]:
        """Return the joint's position (2,) in the picture and the limb's direction in radians."""
        turned = self.angle + self.swing * np.sin(2 * np.pi * time + self.phase)
        if self.parent is None:
            return self.joint + self.sway * np.sin(2 * np.pi * time + self.phase + np.array((0, np.pi / 2))), turned
        position, angle = self.parent._placed(time)
        return position + rotation(angle) @ self.joint * self.parent.half_width, angle + turned


def rotation(angle: float) -> Floats:
    """Return the matrix (2, 2) of a rotation from x towards y by an angle in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([(cosine, -sine), (sine, cosine)])
