"""The data set adapter for rendered clips.

A clip is determined by its name: the same name always gives the same frames. Coordinates are those of the models, in
[-1, 1], x before y, with the centres of the corner pixels at -1 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api import ClipRecord
from fommctl_synthetic.casts import CASTS
from fommctl_synthetic.layers import Floats


class Synthetic:
    """Clips of several kinds, with several identities per kind and takes per identity; the last identities are the test
    split."""

    def __init__(
        self,
        *,
        identities: int = 6,
        test_identities: int = 2,
        takes: int = 2,
        size: int = 64,
        length: int = 24,
        kinds: Sequence[str] = ("shapes",),
    ) -> None:
        """size: side of the frames in pixels.  length: number of frames of a clip.  kinds: keys of CASTS."""
        self.scenes = {
            f"{kind}{identity:02d}-take{take}": (identity, CASTS[kind](identity, take, size, length))
            for kind in kinds
            for identity in range(identities)
            for take in range(takes)
        }
        self.first_test = max(1, identities - test_identities)

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield all clips; `root` is not read."""
        for name, (identity, scene) in self.scenes.items():
            yield ClipRecord(
                name=name,
                identity=name.partition("-")[0],
                split="test" if identity >= self.first_test else "train",
                frames=scene.frames,
                keypoints=scene.visible_keypoints,
            )

    def motion(self, name: str) -> tuple[Floats, Floats]:
        """Return the true keypoints (T, K, 2) in [-1, 1], x before y, and Jacobians (T, K, 2, 2) of a clip."""
        return self.scenes[name][1].motion()

    def flow(self, name: str, source_index: int, driving_index: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the true dense motion between two frames of a clip: for each pixel of the driving frame, its position
        in the source frame, (H, W, 2) in [-1, 1], x before y, and whether it is visible there, (H, W) bool."""
        return self.scenes[name][1].flow(source_index, driving_index)
