"""The one convention of faces: boxes as dlib's HOG detector measures them, scores as margins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fommctl.api import Box, Detection

# Two boxes of one picture that overlap by more than this show one face.
SAME_FACE = 0.3


def as_hog(box: Box, *, width: float, down: float) -> Box:
    """Return the square that HOG would report for a face that another detector reports as `box`.

    width: its side, in widths of `box`.  down: distance of its centre below the centre of `box`, in widths of `box`.
    """
    x, y = box.center
    half, middle = box.width * width / 2, y + box.width * down
    return Box(x - half, middle - half, x + half, middle + half)


def margin(probability: float) -> float:
    """Return the log odds: as for HOG, 0 is the edge of a face, and what is sure has many times the score of what is
    not."""
    odds = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(odds / (1 - odds))


def without_repeats(faces: Sequence[Detection]) -> list[Detection]:
    """Return the surest of each group of overlapping detections, the surest first."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(face.box.iou(other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept
