"""True keypoints of a clip that is being cut: those of the frames that are written, in their coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fommctl.api.values import ClipRecord
from fommctl.datasets.keypoints import checked
from fommctl.media.boxes import Box

Floats = NDArray[np.float64]


class KeypointRows:
    """Keypoints frame by frame, as the frames are written."""

    def __init__(self, points: Floats, side: int) -> None:
        """points: (T, K, 2) in [-1, 1], of all frames of the raw clip.  side: of the square frames in pixels."""
        self._points = points
        self._side = side
        self._rows: list[Floats] = []

    @classmethod
    def of(cls, record: ClipRecord, side: int) -> KeypointRows | None:
        """Those of a record; None where it has none. Raises InputError where they make no sense."""
        return None if record.keypoints is None else cls(checked(record.keypoints(), "keypoints"), side)

    def add(self, index: int, whole: tuple[int, int], part: Box | None) -> None:
        """The next frame that is written.

        index: among those of the raw clip.  whole: (width, height) of the raw picture.  part: what of it becomes the
        frame; None for all.
        """
        if index < len(self._points):
            self._rows.append(viewed(self._points[index], whole, part, self._side))
        else:
            self._rows.append(np.full(self._points.shape[1:], np.nan))

    def array(self) -> Floats:
        """(frames added, K, 2) in [-1, 1]."""
        return np.stack(self._rows)


def viewed(points: Floats, whole: tuple[int, int], part: Box | None, side: int) -> Floats:
    """Points (..., 2) of a picture in the coordinates of a part of it that was resized to `side` pixels a side.

    Both in [-1, 1] between the centres of the corner pixels; NaN where a point is outside the part.
    """
    box = part or Box(0, 0, *whole)
    # Resizing keeps the borders of pixels in place, not their centres.
    edges = (points + 1) / 2 * (np.array(whole) - 1) + 0.5
    pixels = (edges - (box.left, box.top)) * side / (box.width, box.height) - 0.5
    inner: Floats = 2 * pixels / (side - 1) - 1
    # A whole frame that keeps its size keeps its corner points, whatever rounding says.
    outside = (np.abs(inner) > 1 + 1e-9).any(-1, keepdims=True)
    return np.where(outside, np.nan, np.clip(inner, -1, 1))
