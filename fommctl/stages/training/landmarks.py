"""Landmarks of the frames of training pairs, found where the pairs are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec


class Landmarks:
    """Landmarks of the surest subject of each frame; called in the workers of the data loader.

    The detector is built at the first call: few of them survive being copied into another process.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        self._spec = spec
        self._detector: Detector | None = None

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | None]:
        """frames: (H, W, 3). Returns (N, 2) in pixels for each, None where no subject was found."""
        if self._detector is None:
            self._detector = self._spec.build()
        return [found[0].landmarks if found else None for found in self._detector.detect(frames)]
