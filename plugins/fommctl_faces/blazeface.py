"""Face detection by BlazeFace (Bazarevsky et al. 2019), as shipped with the package face-alignment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection
from fommctl_faces.geometry import as_hog, margin, without_repeats
from fommctl_faces.pixels import resize
from fommctl_faces.weights import BLAZEFACE, fetch, import_face_alignment

# Input size of the front model, pixels.
SIDE = 128
# Log odds of a probability of 0.75. Without such a face, a second pass over windows of half the side follows: the front
# model misses faces smaller than a tenth of the picture's side, and may then report something else at 0.5 to 0.7.
SURE = margin(0.75)
# Medians against dlib-hog over the 105 stills and 178 frames of clips that the built-in model was trained on (spread
# 0.08, 0.07 and 0.06 of the width, mostly from HOG's coarse steps in size and position).
WIDTH, DOWN = 0.976, -0.034


class BlazeFaceDetector:
    """The front model on the CPU, about 4 ms per picture. Scores are log odds, above 0; the 6 landmarks are eyes, nose,
    mouth and ears."""

    def __init__(self) -> None:
        library = import_face_alignment("detection.blazeface")
        self._net: Any = fetch(BLAZEFACE, lambda: library.FaceDetector(device="cpu")).face_detector

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect the faces in each (H, W, 3) RGB picture, the most confident first, each with landmarks (6, 2) in
        pixels, x before y."""
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame: NDArray[np.uint8]) -> list[Detection]:
        height, width = frame.shape[:2]
        faces = self._faces_in(frame, [Box(0, 0, width, height)])
        sure = [face for face in faces if face.score >= SURE]
        if not sure:
            closer = self._faces_in(frame, list(_windows(height, width)))
            sure = [face for face in closer if face.score >= SURE]
        return without_repeats(sure or faces)

    def _faces_in(self, frame: NDArray[np.uint8], windows: list[Box]) -> list[Detection]:
        """Detect faces in several windows of one picture; boxes are in the picture's pixels."""
        squares = np.zeros((len(windows), SIDE, SIDE, 3), np.uint8)
        scales = []
        for square, window in zip(squares, windows, strict=True):
            part = frame[int(window.top) : int(window.bottom), int(window.left) : int(window.right)]
            scale = SIDE / max(part.shape[:2])
            height, width = (max(1, round(side * scale)) for side in part.shape[:2])
            square[:height, :width] = resize(part, height, width)
            scales.append(scale)
        return [
            _detection(row, SIDE / scale, window)
            for rows, scale, window in zip(self._net.predict_on_batch(squares), scales, windows, strict=True)
            for row in rows.numpy().astype(np.float32)
        ]


def _windows(height: int, width: int) -> Iterator[Box]:
    """Yield squares of half the longer side that cover the picture and overlap by at least half."""
    side = math.ceil(max(height, width) / 2)

    def starts(length: int) -> list[int]:
        room = max(0, length - side)
        steps = math.ceil(2 * room / side)
        return [room * step // max(1, steps) for step in range(steps + 1)]

    for top, left in itertools.product(starts(height), starts(width)):
        yield Box(left, top, min(width, left + side), min(height, top + side))


def _detection(row: NDArray[np.float32], side: float, window: Box) -> Detection:
    """Convert one row of the network's output to a detection.

    row: top, left, bottom, right, six x-y pairs, all relative to a square of `side` pixels at the window's corner; then
    the score in [0, 1].
    """
    top, left, bottom, right = (row[:4] * side).tolist()
    landmarks = row[4:16].reshape(6, 2) * side + np.array([window.left, window.top], np.float32)
    box = as_hog(Box(left, top, right, bottom).shifted(window.left, window.top), width=WIDTH, down=DOWN)
    return Detection(box, margin(float(row[16])), landmarks)
