"""Searching one picture for subjects: in tiles, and again in windows around a known or expected position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detection, Detector
from fommctl.media.boxes import Box, TurnedSquare, square
from fommctl.media.resampling import upright

# Size of the corner tiles that are searched separately, in sides of the picture.
CORNER = 0.6
# A subject is detected again in windows of these sizes (in its widths), and the boxes are averaged: HOG's sizes come in
# steps of a fifth, and these fall between them. A box with a smaller IoU than SAME with the first is another subject.
ZOOMS, SAME = (1.9, 2.2, 2.5), 0.4
# Least IoU of a subject's box with the expected one.
NEAR = 0.2
# A tilted face is searched in windows turned by these angles (degrees) from the expected one, ROOM of its widths wide.
# HOG's scores are flat within 30 degrees and gone at 50: their mean angle is the head's to about 5 degrees.
TURNS, ROOM = (-40.0, -20.0, 0.0, 20.0, 40.0), 2.4
# Side of a turned window, in pixels.
TURNED_SIDE = 320
# Landmarks of a face's eyes by the number of landmarks, the eye on the left of the picture first.
EYES = {
    6: ((0,), (1,)),  # BlazeFace
    68: (tuple(range(36, 42)), tuple(range(42, 48))),  # iBUG: dlib, FAN
    468: ((33, 133), (362, 263)),  # MediaPipe's face mesh
    478: ((33, 133), (362, 263)),  # with irises
}


def detect_in_tiles(
    pixels: NDArray[np.uint8], detector: Detector, whole: Sequence[Detection] | None = None
) -> list[Detection]:
    """Return each subject once, the most confident first. Corner tiles are searched too, to find small subjects beside
    large ones.  whole: detections in the whole picture, if already known."""
    height, width = pixels.shape[:2]
    across, down = math.ceil(CORNER * width), math.ceil(CORNER * height)
    corners = [Box(x, y, x + across, y + down) for x in (0, width - across) for y in (0, height - down)]
    kept: list[Detection] = []
    if whole is None:
        (whole,) = detector.detect([pixels])
    for found in (whole, *_in_windows(pixels, corners, detector)):
        kept += [one for one in found if all(one.box.intersection(other.box).area == 0 for other in kept)]
    return sorted(kept, key=lambda detection: -detection.score)


def _in_windows(pixels: NDArray[np.uint8], windows: Sequence[Box], detector: Detector) -> list[list[Detection]]:
    """Return the detections in each of these parts of a picture, in the picture's pixels."""
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


def refined_box(pixels: NDArray[np.uint8], box: Box, detector: Detector) -> Box:
    """Return the mean of the box and of detections in windows around it: a single detection is off by up to a
    tenth."""
    windows = [square(box.center, zoom * box.width).clipped(*pixels.shape[1::-1]) for zoom in ZOOMS]
    found = _in_windows(pixels, windows, detector)
    boxes = [box, *(max((one.box for one in again), key=box.iou) for again in found if again)]
    same = [other for other in boxes if other.iou(box) >= SAME]
    sides = np.mean([other.sides for other in same], axis=0)
    return Box(*sides.tolist())


def redetect(pixels: NDArray[np.uint8], expected: Box, detector: Detector) -> Detection | None:
    """Detect a subject near its expected box, in windows of several sizes; None if it is not found."""
    found = []
    for zoom in ZOOMS:
        window = square(expected.center, zoom * expected.width).clipped(*pixels.shape[1::-1])
        if window.area:
            found += _in_windows(pixels, [window], detector)[0]
    near = [one for one in found if one.box.iou(expected) >= NEAR]
    if not near:
        return None
    best = max(near, key=lambda one: one.score)
    same = [one for one in near if one.box.iou(best.box) >= SAME]
    sides = np.mean([one.box.sides for one in same], axis=0)
    return Detection(Box(*sides.tolist()), best.score, best.landmarks)


def redetect_turned(
    pixels: NDArray[np.uint8], expected: Box, angle: float, detector: Detector
) -> tuple[Detection, float] | None:
    """Detect a face near its expected box and tilt (degrees clockwise), in turned windows; None if it is not found.

    Returns the detection and the angle, both means weighted by the detector's scores. The box is upright, with the size
    of the box in the turned window and the same centre.
    """
    side = ROOM * expected.width
    scale = side / TURNED_SIDE
    angles = [angle + turn for turn in TURNS]
    views = [upright(pixels, TurnedSquare(expected.center, side, each), (TURNED_SIDE, TURNED_SIDE)) for each in angles]
    rows = []
    for turn, found in zip(angles, detector.detect(views), strict=True):
        if not found:
            continue
        best = max(found, key=lambda one: one.score)
        radians, width = math.radians(turn), scale * best.box.width
        x, y = (scale * (middle - TURNED_SIDE / 2) for middle in best.box.center)
        center_x = expected.center[0] + math.cos(radians) * x - math.sin(radians) * y
        center_y = expected.center[1] + math.sin(radians) * x + math.cos(radians) * y
        box = Box(center_x - width / 2, center_y - width / 2, center_x + width / 2, center_y + width / 2)
        if best.score > 0 and box.iou(expected) >= NEAR:
            rows.append((best.score, turn, *box.center, width))
    if not rows:
        return None
    scores = np.array([row[0] for row in rows])
    turn, x, y, width = (np.array([row[1:] for row in rows]) * scores[:, None] / scores.sum()).sum(0).tolist()
    box = Box(x - width / 2, y - width / 2, x + width / 2, y + width / 2)
    return Detection(box, float(scores.max())), turn


def roll(detection: Detection) -> float:
    """Return the clockwise tilt of a face in degrees, from its eyes; 0 if its landmarks do not include them."""
    landmarks = detection.landmarks
    if landmarks is None or len(landmarks) not in EYES:
        return 0.0
    first, second = (landmarks[list(points)].mean(0) for points in EYES[len(landmarks)])
    x, y = (second - first).tolist()
    return math.degrees(math.atan2(y, x)) if math.isfinite(x + y) else 0.0
