"""Faces by dlib's HOG detector, which carries its own weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection, MissingError
from fommctl_faces.pixels import luma, resize

# Faces below 80 pixels are not seen. At a longer side of 480 that is a sixth of the picture, at a tenth of the time
# that 1600 takes; the larger sizes are for small faces and are tried only where the smaller ones show none.
SIDES = (480, 960, 1600)
# Below this the next size is tried, too: a face just at the edge of what a size shows is measured badly.
CLEAR = 0.5
# Enlarging shows small faces (carphone: none as it is, all at twice the size), but beyond this adds only time.
LARGEST_SCALE = 3.0
# One size is tried after another only where it shows faces that are this much smaller.
SIZE_STEP = 1.3


class HogDetector:
    """dlib's frontal face detector. Scores are its margins: 0 is the edge of a face, 1 and more are sure."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingError(f"dlib cannot be loaded: {error}", "Install it with 'pip install dlib-bin'.") from error
        self._find = dlib.get_frontal_face_detector()

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Return faces in each (H, W, 3) picture, the surest first."""
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame: NDArray[np.uint8]) -> list[Detection]:
        doubtful: list[Detection] = []
        for scale in _scales(*frame.shape[:2]):
            faces = sorted(self._faces_at(frame, scale), key=lambda face: -face.score)
            if doubtful:
                return max(doubtful, faces, key=lambda found: found[0].score if found else 0.0)
            if faces and faces[0].score >= CLEAR:
                return faces
            doubtful = faces
        return doubtful

    def _faces_at(self, frame: NDArray[np.uint8], scale: float) -> list[Detection]:
        height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
        found: tuple[Any, Any, Any] = self._find.run(luma(resize(frame, height, width)), 0, 0.0)
        zoom_x, zoom_y = frame.shape[1] / width, frame.shape[0] / height
        return [
            # dlib's right and bottom are the last pixels inside.
            Detection(Box(r.left(), r.top(), r.right() + 1, r.bottom() + 1).scaled(zoom_x, zoom_y), float(score))
            for r, score in zip(found[0], found[1], strict=True)
        ]


def _scales(height: int, width: int) -> list[float]:
    """Return the factors by which to enlarge a picture of this size, in the order to try."""
    scales: list[float] = []
    for side in SIDES:
        scale = min(LARGEST_SCALE, side / max(height, width))
        if not scales or scale >= SIZE_STEP * scales[-1]:
            scales.append(scale)
    return scales
