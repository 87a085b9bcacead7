"""Rigid textured layers: what scenes are made of.

Coordinates of the picture are those of the models: [-1, 1], x before y, corner pixels at -1 and 1. Each layer has
coordinates of its own, in which it never changes; a pose takes them to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pose = tuple[Floats, Floats]
"""Centre (2,) and matrix (2, 2), a similarity: own coordinates @ matrix.T + centre lie in the picture."""

SHAPE_KEYPOINTS = np.array([(0.0, 0.0), (0.7, 0.0), (0.0, 0.7)])
"""Keypoints of a shape in its own coordinates (a shape is the unit disc or the square of half side 1)."""
SHAPE_EDGE = 0.12
"""Width of the soft edge of a shape, in its own coordinates: motion below one pixel shows."""
LIMB_EDGE = 0.4
"""Soft edge of a limb, which is much smaller."""


class Layer(Protocol):
    """A rigid layer in front of all layers before it in the list."""

    @property
    def texture(self) -> Waves:
        """Its colours, in its own coordinates."""
        ...

    @property
    def keypoints(self) -> Floats:
        """(K, 2) in own coordinates."""
        ...

    @property
    def edge(self) -> float:
        """Width of the soft edge, in own coordinates."""
        ...

    @property
    def extent(self) -> Floats:
        """Left, top, right and bottom of a box around it in own coordinates, edge included: (4,)."""
        ...

    def radius(self, own: Floats) -> Floats:
        """Return (...,): below 1 inside, 1 at the outline, growing as the distance does; own: (..., 2)."""
        ...

    def pose(self, time: float) -> Pose:
        """Return the pose at `time` in [0, 1); motion repeats after that."""
        ...


@dataclass(frozen=True)
class Waves:
    """A colour texture: the sum of a few plane waves."""

    frequencies: Floats
    """(N, 2), radians per unit."""
    phases: Floats
    """(N,)"""
    colours: Floats
    """(N, 3)"""
    base: Floats
    """(3,)"""

    @classmethod
    def drawn(cls, random: np.random.Generator, frequency: float, contrast: float) -> Waves:
        """Return six waves of about this frequency around a random base colour."""
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
    """A disc or square on a smooth path of its own."""

    texture: Waves
    square: bool
    size: float
    """Mean radius or half side."""
    centre: Floats
    """(2,) mean position."""
    swing: Floats
    """(2,) amplitudes of the motion of the centre."""
    turn: float
    """Amplitude of the rotation, radians."""
    growth: float
    """Amplitude of the logarithm of the size."""
    phases: Floats
    """(4,) of x, y, rotation and growth."""

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
    """A bar with round ends that swings about a point of the limb that it hangs on.

    Its own unit is half its width; the joint is at (0, 0), the other end at (length, 0). A disc where length is 0.
    """

    texture: Waves
    parent: Limb | None
    joint: Floats
    """(2,) where it hangs: in the parent's own coordinates, or in the picture where there is no parent."""
    half_width: float
    """The half width in the picture."""
    length: float
    """The length in half widths."""
    angle: float
    """Radians from the parent's direction, or from the picture's x axis towards y (downwards)."""
    swing: float
    """Amplitude of the rotation about that, radians."""
    phase: float
    sway: Floats
    """(2,) amplitudes of the motion of the joint, for limbs without a parent."""

    edge = LIMB_EDGE

    @property
    def keypoints(self) -> Floats:
        """The joint and the other end."""
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
        """Return position (2,) of the joint in the picture and the limb's direction."""
        turned = self.angle + self.swing * np.sin(2 * np.pi * time + self.phase)
        if self.parent is None:
            return self.joint + self.sway * np.sin(2 * np.pi * time + self.phase + np.array((0, np.pi / 2))), turned
        position, angle = self.parent._placed(time)
        return position + rotation(angle) @ self.joint * self.parent.half_width, angle + turned


def rotation(angle: float) -> Floats:
    """Return (2, 2), from x towards y."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([(cosine, -sine), (sine, cosine)])
