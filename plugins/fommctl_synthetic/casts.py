"""The scenes of each kind: two shapes, a figure walking on the spot, or a reaching arm.

Appearance (textures, shapes, proportions) depends on the identity alone, motion on identity and take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fommctl_synthetic.layers import Floats, Limb, Shape, Waves
from fommctl_synthetic.scenes import Scene

STILL = np.zeros(2)
DOWN = np.pi / 2
"""Angle of a limb that hangs straight down, radians."""


def shapes(identity: int, take: int, size: int, length: int) -> Scene:
    """Return a scene of two textured shapes that move, turn and scale, and sometimes occlude each other."""
    return _two_shapes(identity, take, size, length, turn=(0.2, 0.7), growth=(0.05, 0.2))


def turning(identity: int, take: int, size: int, length: int) -> Scene:
    """Return a scene of two shapes as in `shapes` that turn by up to 120 degrees and scale by up to half each way."""
    return _two_shapes(identity, take, size, length, turn=(1.0, 2.1), growth=(0.2, 0.4))


def _two_shapes(
    identity: int, take: int, size: int, length: int, *, turn: tuple[float, float], growth: tuple[float, float]
) -> Scene:
    """Return a scene of two shapes.

    turn, growth: ranges of the amplitudes of rotation (radians) and of the logarithm of the size.
    """
    look, motion = np.random.default_rng([identity]), np.random.default_rng([identity, take + 1])
    sides = (-0.4, 0.4)
    layers = tuple(
        Shape(
            texture=Waves.drawn(look, 4.0, 0.35),
            square=bool(look.integers(2)),
            size=look.uniform(0.28, 0.36),
            centre=np.array((side, 0.0)) + motion.uniform(-0.08, 0.08, 2),
            swing=motion.uniform(0.08, 0.2, 2),
            turn=motion.uniform(*turn),
            growth=motion.uniform(*growth),
            phases=motion.uniform(0, 2 * np.pi, 4),
        )
        for side in sides
    )
    return Scene(Waves.drawn(look, 1.5, 0.08), layers, size, length)


def figure(identity: int, take: int, size: int, length: int) -> Scene:
    """Return a scene of a body of ten limbs, whose arms and legs swing in front of and behind it."""
    look, motion = np.random.default_rng([identity, 101]), np.random.default_rng([identity, 101, take + 1])
    skin, shirt, trousers = look.uniform(0.15, 0.85, (3, 3))
    stature = look.uniform(0.9, 1.05)
    phase, stride, reach = motion.uniform(0, 2 * np.pi), motion.uniform(0.35, 0.6), motion.uniform(0.5, 1.0)
    torso = Limb(
        texture=_woven(look, shirt), parent=None, joint=np.array((0.0, 0.16)), half_width=0.15 * stature, length=2.6,
        angle=-DOWN, swing=motion.uniform(0.05, 0.12), phase=phase, sway=motion.uniform(0.03, 0.08, 2),
    )  # fmt: skip
    neck = np.array((3.9, 0.0))
    head = _hung(torso, neck, _woven(look, skin), 0.12 * stature, 0.35, 0.0, motion.uniform(0.1, 0.3), phase + 1)

    def pair(joint: Floats, colours: Floats, width: float, angle: float, swing: float, offset: float) -> list[Limb]:
        """Return an arm or a leg: the lower limb, which bends one way only, and the upper one."""
        upper = _hung(torso, joint, _woven(look, colours[0]), width, 4.2, np.pi + angle, swing, phase + offset)
        bend = 0.6 * swing
        lower = _hung(
            upper, np.array((4.2, 0.0)), _woven(look, colours[1]), 0.85 * width, 4.4, np.copysign(bend, angle), bend,
            phase + offset + 1,
        )  # fmt: skip
        return [lower, upper]

    sleeves, legs = np.stack([shirt, skin]), np.stack([trousers, trousers])
    far = [
        *pair(np.array((2.4, -0.5)), sleeves, 0.055, -0.35, reach, 0.0),
        *pair(np.array((0.0, -0.4)), legs, 0.07, 0.12, stride, np.pi),
    ]
    near = [
        *pair(np.array((0.0, 0.4)), legs, 0.07, 0.12, stride, 0.0),
        *pair(np.array((2.4, 0.5)), sleeves, 0.055, -0.35, reach, np.pi),
    ]
    return Scene(Waves.drawn(look, 1.5, 0.08), (*far, torso, head, *near), size, length)


def arm(identity: int, take: int, size: int, length: int) -> Scene:
    """Return a scene of a three-segment arm on a stand, its gripper opening and closing, and a block on a table."""
    look, motion = np.random.default_rng([identity, 102]), np.random.default_rng([identity, 102, take + 1])
    metal, joints = look.uniform(0.2, 0.85, (2, 3))
    side = look.choice((-1.0, 1.0))
    stand = Limb(
        texture=_woven(look, joints), parent=None, joint=np.array((-0.35 * side, 0.8)), half_width=0.16, length=1.0,
        angle=-DOWN, swing=0.0, phase=0.0, sway=STILL,
    )  # fmt: skip
    block = Limb(
        texture=Waves.drawn(look, 1.0, 0.2), parent=None, joint=np.array((0.45 * side, 0.75)), half_width=0.11,
        length=0.8, angle=0.0, swing=0.1, phase=motion.uniform(0, 2 * np.pi), sway=motion.uniform(0.02, 0.1, 2),
    )  # fmt: skip
    segments = [stand]
    for width, reach, angle in ((0.085, 7.0, -0.15), (0.07, 7.0, 1.35), (0.055, 3.0, 0.8)):
        end = np.array((segments[-1].length, 0.0))
        texture = _woven(look, metal if len(segments) % 2 else joints)
        swing, phase = motion.uniform(0.15, 0.4), motion.uniform(0, 2 * np.pi)
        segments.append(_hung(segments[-1], end, texture, width, reach, side * angle, swing, phase))
    hand, grip = segments[-1], motion.uniform(0, 2 * np.pi)
    fingers = [
        _hung(hand, np.array((3.0, 0.8 * way)), _woven(look, joints), 0.032, 4.5, 0.35 * way, 0.3 * way, grip)
        for way in (-1.0, 1.0)
    ]
    return Scene(Waves.drawn(look, 1.5, 0.08), (block, *fingers, *reversed(segments[1:]), stand), size, length)


def reach(identity: int, take: int, size: int, length: int) -> Scene:
    """Return a scene of an arm of three thick segments from the lower edge, each swinging widely about the end of the
    previous one. Even at 64 pixels, each is wide enough to show its texture and rotation."""
    look, motion = np.random.default_rng([identity, 103]), np.random.default_rng([identity, 103, take + 1])
    below: Limb | None = None
    segments = []
    for half_width, segment_length, swing in ((0.15, 3.4, 0.5), (0.13, 3.4, 0.9), (0.11, 3.2, 1.2)):
        texture = Waves.drawn(look, 1.6, 0.3)
        bend, phase = motion.uniform(0.6, 1.0) * swing, motion.uniform(0, 2 * np.pi)
        if below is None:
            base = np.array((motion.uniform(-0.2, 0.2), 0.85))
            below = Limb(texture, None, base, half_width, segment_length, -DOWN, bend, phase, STILL)
        else:
            end = np.array((below.length, 0.0))
            below = _hung(below, end, texture, half_width, segment_length, motion.uniform(-0.3, 0.3), bend, phase)
        segments.append(below)
    return Scene(Waves.drawn(look, 1.5, 0.08), tuple(segments), size, length)


CASTS: Mapping[str, Callable[[int, int, int, int], Scene]] = {
    "shapes": shapes,
    "figure": figure,
    "arm": arm,
    "turning": turning,
    "reach": reach,
}
"""Functions that make a scene, by kind: (identity, take, side in pixels, number of frames) -> scene."""


def _woven(random: np.random.Generator, base: Floats) -> Waves:
    """Return a random texture for a limb around a base colour (3,)."""
    return replace(Waves.drawn(random, 1.2, 0.14), base=base)


def _hung(
    parent: Limb, joint: Floats, texture: Waves, half_width: float, length: float, angle: float, swing: float,
    phase: float,
) -> Limb:  # fmt: skip
    return Limb(texture, parent, joint, half_width, length, angle, swing, phase, STILL)
