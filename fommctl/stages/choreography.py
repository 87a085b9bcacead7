"""From the motion of the driving video to the motion of the source, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fommctl.core import transfer
from fommctl.core.smoothing import MotionSmoother
from fommctl.core.transfer import Motion
from fommctl.stages.options import MotionMode


@dataclass(frozen=True, slots=True)
class Memory:
    """What a choreography keeps of the frames that it has seen, on the CPU; another process can be handed it."""

    held: Motion
    smoother: MotionSmoother | None


class Choreography:
    """Applies hold, smoothing and transfer, in this order; remembers what it needs from batch to batch."""

    def __init__(self, source: Motion, reference: Motion, *, mode: MotionMode, adapt_scale: bool, smooth: bool) -> None:
        """source, reference: one frame each. adapt_scale counts for relative motion only."""
        self.source = source
        self.reference = reference
        self.mode = mode
        self.scale = 1.0
        if mode == "relative" and adapt_scale:
            self.scale = transfer.movement_scale(source, reference)
        self._smoother = MotionSmoother() if smooth else None
        self._held = reference

    def __call__(self, driving: Motion, times: Sequence[float], present: Sequence[bool]) -> Motion:
        """The source's motion for B driving frames at `times` (seconds); where a frame's subject is not present, the
        last motion before it (the reference before any) is held."""
        driving = self._hold(driving, present)
        if self._smoother is not None:
            driving = self._smoother(driving, times)
        if self.mode == "absolute":
            return driving
        return transfer.relative(driving, self.reference, self.source, self.scale)

    def memory(self) -> Memory:
        """As it is after the frames so far."""
        return Memory(self._held.to("cpu"), None if self._smoother is None else self._smoother.to("cpu"))

    def resume(self, memory: Memory) -> None:
        """Go on as if this one had seen the frames that `memory` is of."""
        device = self.reference.keypoints.device
        self._held = memory.held.to(device)
        self._smoother = None if memory.smoother is None else memory.smoother.to(device)

    def _hold(self, driving: Motion, present: Sequence[bool]) -> Motion:
        """Absent frames get the motion of the last present one."""
        held = driving
        if not all(present):
            chosen, last = [], 0
            for index, here in enumerate(present, start=1):
                last = index if here else last
                chosen.append(last)
            held = Motion.cat((self._held, driving))[chosen]
        self._held = held[-1:]
        return held
