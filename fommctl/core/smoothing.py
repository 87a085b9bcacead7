"""The one-euro filter (Casiez, Roussel, Vogel, CHI 2012) on keypoints and Jacobians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fommctl.core.transfer import Motion


@dataclass(slots=True)
class OneEuro:
    """Low-pass filter whose cutoff rises with speed: steady where little moves, quick where much does.

    minimum_cutoff: Hz, of a signal at rest.  speed_factor: Hz per unit of speed (units a second).
    derivative_cutoff: Hz, of the speed estimate.
    """

    minimum_cutoff: float = 1.5
    speed_factor: float = 4.0
    derivative_cutoff: float = 1.0
    _value: Tensor | None = None
    _speed: Tensor | None = None
    _time: float = 0.0

    def __call__(self, value: Tensor, time: float) -> Tensor:
        """The filtered value at a time in seconds, later than that of the call before."""
        if self._value is None or self._speed is None:
            self._value, self._speed = value, torch.zeros_like(value)
        else:
            elapsed = max(time - self._time, 1e-6)
            speed = (value - self._value) / elapsed
            self._speed = torch.lerp(self._speed, speed, _weight(self.derivative_cutoff, elapsed))
            cutoff = self.minimum_cutoff + self.speed_factor * self._speed.abs()
            step = 2 * math.pi * cutoff * elapsed
            self._value = self._value + (value - self._value) * (step / (step + 1))
        self._time = time
        return self._value

    def to(self, device: torch.device | str) -> OneEuro:
        """A copy on another device, which goes on where this one stands."""
        return replace(
            self,
            _value=None if self._value is None else self._value.to(device),
            _speed=None if self._speed is None else self._speed.to(device),
        )


def _weight(cutoff: float, elapsed: float) -> float:
    step = 2 * math.pi * cutoff * elapsed
    return step / (step + 1)


class MotionSmoother:
    """Filters the motions of a clip in their order."""

    def __init__(self) -> None:
        self._filters = [OneEuro() for _ in fields(Motion)]

    def __call__(self, motion: Motion, times: Sequence[float]) -> Motion:
        """motion: of B frames, at B times in seconds."""
        keypoints, *others = (
            None if part is None else torch.stack([smooth(*pair) for pair in zip(part, times, strict=True)])
            for smooth, part in zip(self._filters, motion.parts(), strict=True)
        )
        assert keypoints is not None
        return Motion(keypoints, *others)

    def to(self, device: torch.device | str) -> MotionSmoother:
        """A copy on another device, which goes on where this one stands."""
        copy = MotionSmoother()
        copy._filters = [each.to(device) for each in self._filters]
        return copy
