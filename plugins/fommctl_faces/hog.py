"""Face detection by dlib's HOG detector, whose weights are part of dlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection, MissingError
from fommctl_faces.pixels import luma, resize

# Longer sides of the picture, pixels. The detector finds faces from 80 pixels: a sixth of a picture of 480, which takes
# a tenth of the time of 1600. The larger sizes are tried only if the smaller ones show no face.
SIDES = (480, 960, 1600)
# Score below which the next size is tried as well: boxes of faces near the smallest detectable size are inaccurate.
CLEAR = 0.5
# Largest enlargement. It reveals small faces (carphone: none at the original size, all at twice); more only costs time.
LARGEST_SCALE = 3.0
# Least ratio between two sizes that are tried.
SIZE_STEP = 1.3


class HogDetector:
    """dlib's frontal face detector. Scores are distances from its decision boundary: 0 is the limit, 1 is confident."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingError(f"dlib cannot be loaded: {error}", "Install it with 'pip install dlib-bin'.") from error
        self._find = dlib.get_frontal_face_detector()

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the most confident first."""
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
            # dlib's right and bottom edges are the last pixels inside.
            Detection(Box(r.left(), r.top(), r.right() + 1, r.bottom() + 1).scaled(zoom_x, zoom_y), float(score))
            for r, score in zip(found[0], found[1], strict=True)
        ]


def _scales(height: int, width: int) -> list[float]:
    """Return the factors by which to enlarge a picture of this size, in the order in which to try them."""
    scales: list[float] = []
    for side in SIDES:
        scale = min(LARGEST_SCALE, side / max(height, width))
        if not scales or scale >= SIZE_STEP * scales[-1]:
            scales.append(scale)
    return scales
