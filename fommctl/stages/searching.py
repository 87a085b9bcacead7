"""Looking for subjects in one picture, where there is time to look twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.api.values import Detection
from fommctl.media.boxes import Box, square

# Corners of a picture that are searched by themselves, in its sides.
CORNER = 0.6
# A picture's subject is looked at again in windows of so many of its widths, and averaged: HOG's sizes go in steps of a
# fifth, and these fall between them. What overlaps less than this with the first box is something else.
ZOOMS, SAME = (1.9, 2.2, 2.5), 0.4


def all_detections(pixels: NDArray[np.uint8], detector: Detector) -> list[Detection]:
    """Each subject once, the surest first; small ones beside large ones are found in the corners by themselves."""
    height, width = pixels.shape[:2]
    across, down = math.ceil(CORNER * width), math.ceil(CORNER * height)
    corners = [Box(x, y, x + across, y + down) for x in (0, width - across) for y in (0, height - down)]
    kept: list[Detection] = []
    for found in _in_windows(pixels, [Box(0, 0, width, height), *corners], detector):
        kept += [one for one in found if all(one.box.intersection(other.box).area == 0 for other in kept)]
    return sorted(kept, key=lambda detection: -detection.score)


def _in_windows(pixels: NDArray[np.uint8], windows: Sequence[Box], detector: Detector) -> list[list[Detection]]:
    """The detections in each of these parts of a picture, in the picture's own pixels."""
    views = [
        np.ascontiguousarray(pixels[int(window.top) : int(window.bottom), int(window.left) : int(window.right)])
        for window in windows
    ]
    return [
        [
            Detection(
                one.box.shifted(window.left, window.top),
                one.score,
                None if one.landmarks is None else one.landmarks + np.array([window.left, window.top], np.float32),
            )
            for one in found
        ]
        for window, found in zip(windows, detector.detect(views), strict=True)
    ]


def looked_at_again(pixels: NDArray[np.uint8], box: Box, detector: Detector) -> Box:
    """The mean of the box and of what the detector finds in windows around it: one look is off by up to a tenth."""
    windows = [square(box.center, zoom * box.width).clipped(*pixels.shape[1::-1]) for zoom in ZOOMS]
    found = _in_windows(pixels, windows, detector)
    boxes = [box, *(max((one.box for one in again), key=box.iou) for again in found if again)]
    same = [other for other in boxes if other.iou(box) >= SAME]
    sides = np.mean([(other.left, other.top, other.right, other.bottom) for other in same], axis=0)
    return Box(*sides.tolist())
