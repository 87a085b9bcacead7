"""The reference frames of relative motion, one per shot: the driving frame whose pose corresponds to the source's.

The nearest pose is found as in the published find_best_frame: points are centred and divided by the square root of the
area of their convex hull, so that position and size do not matter, and compared by the sum of squared differences.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from fommctl.animate.motion import DrivingFrame
from fommctl.animate.plan import AnimationPlan
from fommctl.errors import InputError, UsageError
from fommctl.networks import transfer
from fommctl.networks.motion import MotionParts

log = logging.getLogger(__name__)
SEARCH_RATE = Fraction(5)
SEARCH_FRAMES = 300
"""Poses are compared five times per second, but at no more than SEARCH_FRAMES frames of a video."""
Points = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """The driving frame of a shot whose pose corresponds to the source's; relative motion is measured from it."""

    time: Fraction
    """Seconds since --start."""
    motion: MotionParts
    """Motion of the frame, one row."""


class ReferenceFinder:
    """Finds the reference of each shot in a stream of driving frames.

    `first` takes the first frame of a shot that shows the subject, or its very first if none does. A frame number sets
    the reference of that frame's shot; other shots use `first`. `auto` takes the frame whose pose is nearest to the
    source's, by landmarks if the detector finds them, else by the model's keypoints.
    """

    def __init__(self, plan: AnimationPlan, source: MotionParts) -> None:
        """source: motion of the source, one frame. Raises UsageError if poses cannot be compared."""
        self.found: dict[int, Reference] = {}
        """References found so far, by the index of the shot."""
        self._plan = plan
        self._source = source
        self._driving = plan.inputs.driving
        self._auto = plan.config.best_frame == "auto"
        wanted = plan.config.best_frame
        self._number = int(wanted) if wanted not in (None, "first", "auto") else None
        self._count = 0
        self._shot = 0
        self._numbered: tuple[int, Reference] | None = None
        self._first: dict[int, Reference] = {}
        """The first frame of each shot."""
        self._seen: dict[int, Reference] = {}
        """The first frame of each shot that shows its subject."""
        self._poses: list[tuple[Reference, Points]] = []
        """Candidates in the current shot, with their keypoints."""
        self._due = Fraction(0)
        shots = range(max(1, len(self._driving.shots))) if self._auto else ()
        self._nearest = {shot: self._by_landmarks(shot) for shot in shots}
        info = plan.info
        self._rate = min(SEARCH_RATE, SEARCH_FRAMES / info.duration) if info.duration else SEARCH_RATE
        if self._auto and not source.points().shape[1] and None in self._nearest.values():
            raise UsageError("this model has no keypoints to compare poses by", "Give --best-frame first or a number.")

    @property
    def at_once(self) -> bool:
        """Whether the reference of each shot is known from its first frame on."""
        starts = [Fraction(0), *(shot.start for shot in self._driving.shots[1:])]
        return not self._auto and self._number in (None, 0) and all(map(self._driving.present, starts))

    def take(self, frame: DrivingFrame) -> int:
        """Process the next frame and return the index of its shot."""
        shot = self._driving.number_at(frame.time)
        if shot != self._shot:
            self._end(self._shot)
            self._shot = shot
        assert frame.motion is not None
        here = Reference(frame.time, frame.motion)
        self._first.setdefault(shot, here)
        if frame.present:
            self._seen.setdefault(shot, here)
        if self._count == self._number:
            self._numbered = shot, here
            self._settle()
        self._count += 1
        if self._auto:
            self._compare(shot, frame, here)
        elif shot in self._seen and (self._number is None or self._numbered is not None):
            self.found.setdefault(shot, self._seen[shot])
        return shot

    def finish(self) -> None:
        """Choose the references that are still open, after the last frame. Raises UsageError for a frame number beyond
        the end."""
        if self._number is not None and self._numbered is None:
            raise UsageError(
                f"--best-frame {self._number} is beyond the end", f"Frames are numbered 0 to {self._count - 1}."
            )
        self._end(self._shot)

    def _end(self, shot: int) -> None:
        """Choose the reference of a shot whose last frame was processed."""
        if self._auto and shot not in self.found and self._poses:
            poses = [points for _, points in self._poses]
            best, _ = nearest_pose(self._source.points()[0].double().cpu().numpy(), poses)
            self.found[shot] = self._poses[best][0]
            self._log(shot, "the model's keypoints")
        self._poses.clear()
        if self._number is None or self._numbered is not None:
            self._settle()

    def _settle(self) -> None:
        """Give every shot that has begun its reference, except those that have one."""
        for shot, first in self._first.items():
            if self._numbered is not None and self._numbered[0] == shot:
                self.found.setdefault(shot, self._numbered[1])
            else:
                self.found.setdefault(shot, self._seen.get(shot, first))

    def _compare(self, shot: int, frame: DrivingFrame, here: Reference) -> None:
        wanted = self._nearest[shot]
        if wanted is None:
            # Sample at the rate of a search, on the clock of the whole video.
            moment = self._driving.start + frame.time
            if self._first[shot] is here or moment >= self._due:
                self._due = (moment * self._rate // 1 + 1) / self._rate
                if frame.present:
                    self._poses.append((here, here.motion.points()[0].double().cpu().numpy()))
        elif frame.time >= wanted and shot not in self.found:
            self.found[shot] = here
            self._log(shot, "landmarks")

    def _by_landmarks(self, shot: int) -> Fraction | None:
        """Return the time of the searched frame whose landmarks are nearest to the source's; None if source or shot
        have none."""
        subject, shots = self._plan.inputs.subject, self._driving.shots
        if subject is None or subject.landmarks is None or not shots:
            return None
        poses = [
            (sample.time, sample.detection.landmarks)
            for sample in shots[shot].samples
            if sample.detection is not None and sample.detection.landmarks is not None
        ]
        if not poses:
            return None
        best, _ = nearest_pose(subject.landmarks, [landmarks for _, landmarks in poses])
        return poses[best][0]

    def _log(self, shot: int, how: str) -> None:
        log.info("reference frame at %.3f s, by %s", float(self.found[shot].time), how)


def nearest_pose(source: Points, driving: Sequence[Points | None]) -> tuple[int, float]:
    """Return the index of the driving frame whose pose is nearest to the source's, and its distance.

    source: (N, 2), NaN where a point is hidden.  driving: (N, 2) per frame; frames with None are skipped. Points that
    are hidden in source or driving frame are left out, and the sum is scaled up accordingly.
    Raises InputError if no frame can be compared.
    """
    distances = [float("inf") if points is None else _distance(source, points) for points in driving]
    best = int(np.argmin(distances)) if distances else 0
    if not distances or distances[best] == float("inf"):
        raise InputError("no driving frame can be compared with the source's pose", "Give --best-frame first.")
    return best, distances[best]


def _distance(source: Points, driving: Points) -> float:
    """Return the distance between the poses of two sets of points (N, 2), infinite if one has no pose."""
    seen = np.isfinite(source).all(1) & np.isfinite(driving).all(1)
    wanted, own = pose(source[seen]), pose(driving[seen])
    if wanted is None or own is None:
        return float("inf")
    difference = own - wanted
    return float((difference * difference).sum()) * len(source) / len(own)


def pose(points: Points) -> NDArray[np.float64] | None:
    """Normalise position and size of points (N, 2); None if there are none, or all are on a line."""
    if not len(points):
        return None
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    area = transfer.hull_area(torch.from_numpy(centred))
    return centred / np.sqrt(area) if area > 0 else None
