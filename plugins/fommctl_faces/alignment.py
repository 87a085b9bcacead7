"""Face detection by S3FD (Zhang et al. 2017) and 68 landmarks by FAN (Bulat and Tzimiropoulos 2017), as shipped with
the package face-alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection
from fommctl_faces.geometry import margin, without_repeats
from fommctl_faces.pixels import resize
from fommctl_faces.weights import FAN, SFD, fetch, import_face_alignment

# S3FD finds faces of a few pixels; larger pictures only take longer (the published crop script also uses 640).
LONGER_SIDE = 640
# S3FD was trained on WIDER FACE, whose boxes fit forehead, chin and cheeks tightly: its box is as wide as the jaw and
# ends at the chin. In jaw widths, HOG's square has a side of 1.07 and a centre 0.60 above the chin: medians over the
# pictures that the built-in model was trained on, with jaw and chin by dlib's 68 landmarks instead of S3FD's box.
SIDE, ABOVE_CHIN = 1.07, 0.60


class SfdDetector:
    """S3FD, on the GPU if there is one. Scores are log odds, above 0."""

    def __init__(self, network: Any = None) -> None:
        """network: a loaded face_alignment SFDDetector; None loads one."""
        self._net = network or fetch(SFD, lambda: import_face_alignment("detection.sfd").FaceDetector(device=_device()))

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the most confident first."""
        return [
            without_repeats([Detection(hog_box(Box(*row[:4])), margin(row[4])) for row in self.rows(frame)])
            for frame in frames
        ]

    def rows(self, frame: NDArray[np.uint8]) -> list[list[float]]:
        """Return S3FD's own boxes in pixels: left, top, right, bottom, score in [0, 1]."""
        scale = min(1.0, LONGER_SIDE / max(frame.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
        found = self._net.detect_from_image(resize(frame, height, width))
        return [[*(value / scale for value in row[:4]), row[4]] for row in np.asarray(found, float).tolist()]


class FanDetector:
    """S3FD with FAN's 68 two-dimensional landmarks."""

    def __init__(self) -> None:
        library = import_face_alignment("api")
        self._align: Any = fetch(
            FAN,
            # Compiling takes 25 s, which pays off only after hundreds of faces; flipping doubles the time.
            lambda: library.FaceAlignment(
                library.LandmarksType.TWO_D, device=_device(), flip_input=False, compile=False
            ),
        )
        self._faces = SfdDetector(self._align.face_detector)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the most confident first, each with landmarks (68, 2) in
        pixels, x before y, in the order of iBUG 300-W."""
        return [self._faces_of(frame) for frame in frames]

    def _faces_of(self, frame: NDArray[np.uint8]) -> list[Detection]:
        rows = self._faces.rows(frame)
        points = self._align.get_landmarks_from_image(frame, detected_faces=rows) if rows else []
        return without_repeats(
            [
                Detection(hog_box(Box(*row[:4])), margin(row[4]), np.asarray(face, np.float32))
                for row, face in zip(rows, points, strict=True)
            ]
        )


def hog_box(box: Box) -> Box:
    """Return HOG's square for a face that S3FD reports as `box`."""
    half = box.width * SIDE / 2
    x, y = box.center[0], box.bottom - box.width * ABOVE_CHIN
    return Box(x - half, y - half, x + half, y + half)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
