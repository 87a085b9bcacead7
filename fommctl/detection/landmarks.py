"""Squares from landmarks: position and orientation from eyes and mouth, size from all landmarks.

This is LivePortrait's framing, with the same arithmetic, so that its models see what they were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection, Detector
from fommctl.detection.framing import CENTERS, MIDDLE
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.presets.sections import SquareParams

Points = NDArray[np.float32]
# The corners of left eye, right eye and mouth, by the number of landmarks.
FACE: Mapping[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    68: ((36, 39), (42, 45), (48, 54)),  # iBUG: dlib, FAN
    106: ((33, 35, 40, 39), (87, 89, 94, 93), (52, 61)),
    203: ((0, 6, 12, 18), (24, 30, 36, 42), (48, 66)),
    468: ((33, 133), (362, 263), (61, 291)),  # MediaPipe's face mesh
    478: ((33, 133), (362, 263), (61, 291)),  # with irises
}


def square_around(params: SquareParams, landmarks: Points) -> TurnedSquare | None:
    """Return the square around a face; None if its set of landmarks is not in FACE, or some are hidden."""
    corners = FACE.get(len(landmarks))
    if corners is None or not np.isfinite(landmarks).all():
        return None
    eyes = np.mean([landmarks[list(eye)].mean(0) for eye in corners[:2]], axis=0)
    down = landmarks[list(corners[2])].mean(0) - eyes
    length = float(np.hypot(*down))
    down = down / length if length > 1e-3 else np.array([0.0, 1.0])
    right = np.array([down[1], -down[0]])
    along = landmarks.astype(np.float64) @ np.stack((right, down), 1)
    low, high = along.min(0), along.max(0)
    side = float((high - low).max()) * params.factor
    x, y = (low + high) / 2
    center = right * x + down * (y + params.offset * side)
    angle = math.degrees(math.atan2(right[1], right[0])) if params.turned else 0.0
    return TurnedSquare((float(center[0]), float(center[1])), side, angle)


@dataclass(frozen=True, slots=True)
class LandmarkDetector:
    """A detector whose boxes are chosen so that framing them by `width` gives the squares from landmarks.

    So searching a clip, tracking and following work with it unchanged.
    """

    detector: Detector
    square: SquareParams
    width: float
    """Width of a subject's box, in sides of the square."""
    subject: str

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """See `fommctl.api.Detector`."""
        return [[self._framed(one) for one in found] for found in self.detector.detect(frames)]

    def _framed(self, found: Detection) -> Detection:
        square = None if found.landmarks is None else square_around(self.square, found.landmarks)
        if square is None:
            return found
        middle = CENTERS.get(self.subject, MIDDLE)
        x, y = (at + (share - 0.5) * square.side for at, share in zip(square.center, middle, strict=True))
        half = self.width * square.side / 2
        return replace(found, box=Box(x - half, y - half, x + half, y + half))


class LandmarkFinder:
    """Finds the landmarks of the most confident subject of each picture."""

    def __init__(self, detector: Detector, count: int) -> None:
        self._detector = detector
        self._count = count

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Points:
        """Return (B, N, 2); NaN where none are found."""
        rows = np.full((len(frames), self._count, 2), np.nan, np.float32)
        for row, found in zip(rows, self._detector.detect(frames), strict=True):
            if found and found[0].landmarks is not None and len(found[0].landmarks) == self._count:
                row[:] = found[0].landmarks
        return rows


def bounds(square: TurnedSquare) -> Box:
    """Return the bounding box of a turned square, in whole pixels."""
    angle = math.radians(square.angle)
    reach = square.side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
    x, y = square.center
    return Box(math.floor(x - reach), math.floor(y - reach), math.ceil(x + reach), math.ceil(y + reach))
