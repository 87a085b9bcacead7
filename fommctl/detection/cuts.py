"""Scene changes: where a video cuts from one shot to another, told from flashes and from fast motion.

The measure is that of content detectors (the mean change of the pixels from frame to frame), judged as adaptive
ones do (PySceneDetect's `detect-adaptive`): against the changes around it, so that a moving camera is no cut.
Dissolves are no cuts here: no single frame of theirs stands out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fommctl.media.reader import Frame

# Mean change of a cut, in levels of 255, at least. Of the 595 pairs of 35 real clips of faces, bodies, robots and
# others, joined, 594 are cut at the joint (the last pair, of one room, changes by 10 only); in the clips themselves
# nothing but edits is cut: their own changes stay below 12 at 5 frames a second and below 10 at 25.
LEAST = 12.0
# And this many times the mean of the two changes before and the two after it.
STANDING_OUT, AROUND = 3.0, 2
# Where a frame shortly before and one shortly after differ by less than this part of the change, what lies between is
# a flash (or a damaged frame) and the shot goes on.
SAME_SHOT = 0.4
FLASH = Fraction(1, 4)
"""Seconds that a flash lasts, at most; no shot is shorter."""
THUMBNAIL = 32
"""Blocks along the longer side whose means are compared."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The first frame of a new shot: its time in seconds, its number."""

    time: Fraction
    frame: int


@dataclass(frozen=True, slots=True)
class _Seen:
    time: Fraction
    frame: int
    thumbnail: NDArray[np.float32]
    change: float
    """From the frame before it."""


class CutFinder:
    """Takes every frame of a video in order; holds thumbnails of a quarter of a second, and no frames."""

    def __init__(self, rate: Fraction) -> None:
        """rate: nominal frames a second."""
        self._reach = max(AROUND, min(15, round(FLASH * rate)))
        self._seen: deque[_Seen] = deque(maxlen=2 * self._reach + 1)
        self._decided = 0
        """Frames that were judged."""
        self._taken = 0
        self._last: Cut | None = None
        self.suspicious = False
        """Does the frame that was taken last look like the first of a shot?"""

    def take(self, frame: Frame) -> list[Cut]:
        """The cuts that this frame settles: those up to about a quarter of a second before it."""
        small = thumbnail(frame.pixels)
        change = difference(small, self._seen[-1].thumbnail) if self._seen else 0.0
        before = [seen.change for seen in list(self._seen)[-AROUND:]]
        self.suspicious = change >= LEAST and change >= STANDING_OUT * float(np.mean(before))
        self._seen.append(_Seen(frame.time, frame.index, small, change))
        self._taken += 1
        return self._judge() if self._taken - self._decided > self._reach else []

    def finish(self) -> list[Cut]:
        """The cuts among the last frames."""
        cuts = []
        while self._decided < self._taken:
            cuts += self._judge()
        return cuts

    def _judge(self) -> list[Cut]:
        position = self._decided - (self._taken - len(self._seen))
        self._decided += 1
        seen = list(self._seen)
        candidate = seen[position]
        if position == 0 or not self._stands_out(seen, position) or self._is_flash(seen, position):
            return []
        if self._last is not None and candidate.time - self._last.time < FLASH:
            return []
        self._last = Cut(candidate.time, candidate.frame)
        return [self._last]

    def _stands_out(self, seen: list[_Seen], position: int) -> bool:
        change = seen[position].change
        # The first frame of all has no change from one before it.
        first = 1 if self._taken <= len(seen) else 0
        before = seen[max(first, position - AROUND) : position]
        others = [other.change for other in (*before, *seen[position + 1 : position + 1 + AROUND])]
        return change >= LEAST and (not others or change >= STANDING_OUT * float(np.mean(others)))

    def _is_flash(self, seen: list[_Seen], position: int) -> bool:
        limit = SAME_SHOT * seen[position].change
        before = seen[max(0, position - self._reach) : position]
        after = seen[position : position + self._reach]
        return any(
            difference(one.thumbnail, other.thumbnail) < limit
            for number, one in enumerate(reversed(before))
            for other in after[: self._reach - number + 1]
        )


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Means over blocks of (H, W, 3); in large pictures of every few pixels only."""
    block = max(1, max(pixels.shape[:2]) // THUMBNAIL)
    step = max(1, block // 8)
    block //= step
    height, width = (-(-side // step) // block * block for side in pixels.shape[:2])
    part = pixels[::step, ::step][:height, :width] if height and width else pixels
    if not (height and width):
        return part.astype(np.float32)
    blocks = part.reshape(height // block, block, width // block, block, 3)
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean change between two thumbnails, levels of 255."""
    return float(np.abs(one - other).mean())
