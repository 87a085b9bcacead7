"""The square that follows a subject through a shot: where it is, how large and how far turned at every moment."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fommctl.media.boxes import TurnedSquare

# Standard deviation, seconds, of the Gaussian that smooths a path.  HOG measures a face to about a tenth of its width,
# five times a second: after this, a head that moves evenly is followed to about one percent.
SMOOTHING = 0.5
# Samples before and after a moment that a median takes stray detections from.
MEDIAN = 2
# Frames between the last searched one and the next, which there is none of, are this many seconds away at most.
BEYOND = 0.25
# A head that is tilted by less than this many degrees is seen as it is: tilting is motion, which belongs to the result.
TILT = 12.0
# A subject whose square moves by less than this part of its side stays inside a fixed square: frames are then those of
# the fixed square.  Nine in ten training clips, which were cut as fixed squares, move by less than 0.2.
STAYS = 0.25
# And one whose size changes by less than this factor, as smoothed, keeps a fixed square filled.
GROWS = 1.35
# A travel that is put back nears this many half sides, however far it goes, where all of it is taken away; the more of
# it is asked for, the farther it may go.  Beyond, necks tear.
FAR = 0.15


@dataclass(frozen=True, slots=True)
class SquarePath:
    """A square through time, given at some moments and interpolated between them."""

    times: tuple[float, ...]
    """Seconds, rising."""
    squares: tuple[TurnedSquare, ...]
    """One for each of the times."""

    def at(self, time: float) -> TurnedSquare:
        """The square at a time; before the first moment and after the last it stands still."""
        # Only the two squares around the time count: an hour of video has thousands.
        after = min(max(bisect.bisect_right(self.times, time), 1), len(self.times) - 1)
        near = slice(max(0, after - 1), after + 1)
        rows = zip(*map(_row, self.squares[near]), strict=True)
        x, y, size, angle = (float(np.interp(time, self.times[near], row)) for row in rows)
        return TurnedSquare((x, y), math.exp(size), angle)

    @property
    def smallest(self) -> float:
        """Least side, pixels."""
        return min(each.side for each in self.squares)

    @property
    def wanders(self) -> bool:
        """Does it leave the place, size and upright position that one fixed square can give its subject?"""
        centers = np.array([each.center for each in self.squares])
        sides = np.array([each.side for each in self.squares])
        travelled = float(np.ptp(centers, axis=0).max() / np.median(sides))
        return travelled > STAYS or bool(sides.max() > GROWS * sides.min()) or any(each.angle for each in self.squares)


@dataclass(frozen=True, slots=True)
class Travel:
    """What a following square takes away of its subject's movement, as a share that is to be put back.

    In the coordinates of the square, [-1, 1] from edge to edge: keypoints p become scale * R(angle) p + shift.
    """

    shift: tuple[float, float]
    scale: float
    angle: float
    """Radians, clockwise."""


STILL = Travel((0.0, 0.0), 1.0, 0.0)


def travel(now: TurnedSquare, reference: TurnedSquare, share: float) -> Travel:
    """The share, 0 to 1, of the square's movement since the reference, as a movement of what is in it.

    Of a long way less is put back, so that the shift stays within FAR / (1 - share).
    """
    angle = math.radians(reference.angle)
    x, y = (2 * share / reference.side * (now.center[axis] - reference.center[axis]) for axis in (0, 1))
    way = math.hypot(x, y)
    if way and share < 1:
        limit = FAR / (1 - share)
        near = limit * math.tanh(way / limit) / way
        x, y = near * x, near * y
    # Seen from a reference that is itself turned.
    shift = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return Travel(shift, (now.side / reference.side) ** share, share * math.radians(now.angle - reference.angle))


def smooth_path(times: Sequence[float], squares: Sequence[TurnedSquare]) -> SquarePath:
    """The path of a square that was measured at rising times, without the measurement's noise.

    A running median drops stray detections, a Gaussian over SMOOTHING seconds takes the steps out. At both ends the
    path goes on along a straight line, and so it does for BEYOND seconds more: one who walks through the picture is not
    left behind.
    """
    rows = np.array([_row(each) for each in squares])
    rows[:, 3] = np.degrees(np.unwrap(np.radians(rows[:, 3])))
    rows[:, 3] = np.sign(rows[:, 3]) * np.maximum(0.0, np.abs(rows[:, 3]) - TILT)
    at = np.array(times)
    rows = np.stack([_median(rows, index) for index in range(len(rows))])
    moments = np.array([at[0] - BEYOND, *at, at[-1] + BEYOND])
    rows = np.array([_weighted(at, rows, moment) for moment in moments])
    path = tuple(TurnedSquare((x, y), math.exp(size), angle) for x, y, size, angle in rows.tolist())
    return SquarePath(tuple(moments.tolist()), path)


def _row(at: TurnedSquare) -> tuple[float, float, float, float]:
    return *at.center, math.log(at.side), at.angle


def _median(rows: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """The row, or the median of its neighbourhood where it lies outside of what its neighbours span."""
    reach = min(MEDIAN, index, len(rows) - 1 - index)
    around: NDArray[np.float64] = np.median(rows[index - reach : index + reach + 1], axis=0)
    return around


def _weighted(times: NDArray[np.float64], rows: NDArray[np.float64], time: float) -> NDArray[np.float64]:
    """The local straight line through the rows, by least squares with Gaussian weights, at a time."""
    offsets = times - time
    weights = np.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    total, first, second = weights.sum(), (weights * offsets).sum(), (weights * offsets**2).sum()
    determinant = total * second - first**2
    if determinant <= 1e-9 * max(total * second, 1e-12):
        mean: NDArray[np.float64] = (weights[:, None] * rows).sum(0) / total
        return mean
    line = ((second - first * offsets) * weights)[:, None] * rows
    fitted: NDArray[np.float64] = line.sum(0) / determinant
    return fitted
