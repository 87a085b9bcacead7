"""Clips of two textured shapes over a still background, rendered from their exact motion.

Everything follows from the name of the clip: the same name gives the same frames. Coordinates are
those of the models: [-1, 1], x before y, corner pixels at -1 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api import ClipRecord

Floats = NDArray[np.float64]

OWN_KEYPOINTS = np.array([(0.0, 0.0), (0.7, 0.0), (0.0, 0.7)])
"""Keypoints of a shape in its own coordinates (a shape is the unit disc or the square of half side 1)."""
EDGE = 0.12
"""Width of the soft edge of a shape, in its own coordinates: motion below one pixel shows."""


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
        """Six waves of about this frequency around a random base colour."""
        return cls(
            frequencies=random.normal(0, frequency, (6, 2)),
            phases=random.uniform(0, 2 * np.pi, 6),
            colours=random.uniform(-contrast, contrast, (6, 3)),
            base=random.uniform(0.25, 0.75, 3),
        )

    def at(self, points: Floats) -> Floats:
        """Colours (..., 3) in [0, 1] at points (..., 2)."""
        return np.clip(self.base + np.cos(points @ self.frequencies.T + self.phases) @ self.colours, 0, 1)


@dataclass(frozen=True)
class Shape:
    """A textured disc or square on a smooth path."""

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

    def pose(self, time: float) -> tuple[Floats, Floats]:
        """Centre (2,) and matrix (2, 2) from own to picture coordinates at `time` in [0, 1)."""
        wave = np.sin(2 * np.pi * time + self.phases)
        angle, scale = self.turn * wave[2], self.size * np.exp(self.growth * wave[3])
        cosine, sine = np.cos(angle), np.sin(angle)
        return self.centre + self.swing * wave[:2], scale * np.array([(cosine, -sine), (sine, cosine)])

    def paint(self, canvas: Floats, grid: Floats, time: float) -> Floats:
        """canvas (H, W, 3) with the shape laid over it; grid: (H, W, 2) positions of its pixels."""
        centre, matrix = self.pose(time)
        own = (grid - centre) @ np.linalg.inv(matrix).T
        radius = np.abs(own).max(-1) if self.square else np.hypot(own[..., 0], own[..., 1])
        cover = np.clip((1 - radius) / EDGE + 0.5, 0, 1)[..., None]
        return canvas + cover * (self.texture.at(own) - canvas)


@dataclass(frozen=True)
class Scene:
    """One clip before it is rendered."""

    background: Waves
    shapes: tuple[Shape, ...]
    size: int
    length: int

    @classmethod
    def drawn(cls, identity: int, take: int, size: int, length: int) -> Scene:
        """The look (textures, forms) depends on the identity alone, the motion on the take too."""
        look, motion = np.random.default_rng([identity]), np.random.default_rng([identity, take + 1])
        sides = (-0.4, 0.4)
        shapes = tuple(
            Shape(
                texture=Waves.drawn(look, 4.0, 0.35),
                square=bool(look.integers(2)),
                size=look.uniform(0.28, 0.36),
                centre=np.array((side, 0.0)) + motion.uniform(-0.08, 0.08, 2),
                swing=motion.uniform(0.08, 0.2, 2),
                turn=motion.uniform(0.2, 0.7),
                growth=motion.uniform(0.05, 0.2),
                phases=motion.uniform(0, 2 * np.pi, 4),
            )
            for side in sides
        )
        return cls(Waves.drawn(look, 1.5, 0.08), shapes, size, length)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """(size, size, 3) uint8, one at a time."""
        axis = np.linspace(-1, 1, self.size)
        grid = np.stack(np.meshgrid(axis, axis), -1)
        background = self.background.at(grid)
        for index in range(self.length):
            canvas = background
            for shape in self.shapes:
                canvas = shape.paint(canvas, grid, index / self.length)
            yield np.round(canvas * 255).astype(np.uint8)

    def motion(self) -> tuple[Floats, Floats]:
        """Keypoints (T, K, 2) in [-1, 1] and the local maps (T, K, 2, 2) around them, three for each shape."""
        poses = [[shape.pose(index / self.length) for shape in self.shapes] for index in range(self.length)]
        keypoints = [np.concatenate([centre + OWN_KEYPOINTS @ matrix.T for centre, matrix in each]) for each in poses]
        jacobians = [np.repeat([matrix for _, matrix in each], len(OWN_KEYPOINTS), 0) for each in poses]
        return np.stack(keypoints), np.stack(jacobians)


class Synthetic:
    """Six identities with two takes each; the last two identities are the test split."""

    def __init__(self, *, identities: int = 6, takes: int = 2, size: int = 64, length: int = 24) -> None:
        self.scenes = {
            f"shapes{identity:02d}-take{take}": (identity, Scene.drawn(identity, take, size, length))
            for identity in range(identities)
            for take in range(takes)
        }
        self.first_test = max(1, identities - 2)

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """All clips; `root` is not read, for nothing is on disk."""
        for name, (identity, scene) in self.scenes.items():
            yield ClipRecord(
                name=name,
                identity=f"shapes{identity:02d}",
                split="test" if identity >= self.first_test else "train",
                frames=scene.frames,
            )

    def motion(self, name: str) -> tuple[Floats, Floats]:
        """The true keypoints (T, K, 2) in [-1, 1], x before y, and Jacobians (T, K, 2, 2) of a clip."""
        return self.scenes[name][1].motion()
