"""Conventions that all face detectors share: boxes as measured by dlib's HOG detector, scores with 0 at the limit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fommctl.api import Box, Detection

# Intersection over union above which two boxes of one picture show the same face.
SAME_FACE = 0.3


def as_hog(box: Box, *, width: float, down: float) -> Box:
    """Convert another detector's `box` of a face to the square that HOG would report.

    width: side of the square.  down: distance of its centre below the centre of `box`. Both in widths of `box`.
    """
    x, y = box.center
    half, middle = box.width * width / 2, y + box.width * down
    return Box(x - half, middle - half, x + half, middle + half)


def margin(probability: float) -> float:
    """Return the log odds of a probability in [0, 1], within about ±9.

    0 is the limit, as with HOG's scores, and confident detections score several times as high as doubtful ones.
    """
    odds = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(odds / (1 - odds))


def without_repeats(faces: Sequence[Detection]) -> list[Detection]:
    """Keep the most confident of each group of overlapping detections; the most confident comes first."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(face.box.iou(other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept
