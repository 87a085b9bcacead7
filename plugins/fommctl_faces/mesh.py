"""MediaPipe's face mesh of 478 landmarks (Kartynnik et al. 2019; lips and eyes: Grishchenko et al. 2020)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection, MissingError

MOST_FACES = 4
CONFIDENCE = 0.3
SIDES = (234, 454)
"""Landmarks next to the ears, the sides of the box."""
BROWS, CHIN = (105, 334), 152


class MeshDetector:
    """MediaPipe's face detector and mesh, without tracking. The weights come with the package."""

    def __init__(self) -> None:
        # Without this, the library prints a message for each of its threads.
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            raise MissingError(
                f"MediaPipe cannot be loaded: {error}", "Install it with pip install 'fommctl[mesh]'."
            ) from error
        self._mesh = FaceMesh(
            static_image_mode=True,
            max_num_faces=MOST_FACES,
            refine_landmarks=True,
            min_detection_confidence=CONFIDENCE,
        )

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the largest first, each with landmarks (478, 2) in pixels, x
        before y. Scores are 1, because MediaPipe reports none."""
        return [sorted(map(_detection, self._find(frame)), key=lambda face: -face.box.width) for frame in frames]

    def _find(self, frame: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        found = self._mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks or ()
        size = np.array([frame.shape[1], frame.shape[0]], np.float32)
        # MediaPipe measures from the edge of the picture, fommctl from the centre of the first pixel.
        return [np.array([(p.x, p.y) for p in face.landmark], np.float32) * size - 0.5 for face in found]


def _detection(points: NDArray[np.float32]) -> Detection:
    left, right = sorted(float(points[number, 0]) for number in SIDES)
    top = float(min(points[number, 1] for number in BROWS))
    return Detection(Box(left, top, max(right, left + 1), max(float(points[CHIN, 1]), top + 1)), 1.0, points)
