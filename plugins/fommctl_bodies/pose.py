"""The 18 joints of a body, by MediaPipe Pose (BlazePose, Bazarevsky et al. 2020).

Chosen among the pose networks on PyPI because it is maintained (by Google), free (Apache 2.0) and works offline: the
wheels up to 0.10.21 contain the weights; later ones download them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection, MissingError

# The full network; the package contains neither the light nor the heavy one.
COMPLEXITY = 1
# Least confidence of a person and least visibility of a joint; MediaPipe's defaults.
CONFIDENCE = 0.5
SEEN = 0.5

NOSE, SHOULDERS = 0, (11, 12)
COCO = (0, SHOULDERS, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""MediaPipe's indices of the 18 joints that OpenPose derives from COCO, in OpenPose's order: nose, neck, then shoulder,
elbow and wrist (right arm, left arm), hip, knee and ankle (right leg, left leg), eyes, ears (right before left). The
neck is the midpoint of the shoulders, as in OpenPose's training data, and visible if both are."""


class PoseDetector:
    """Detects the most prominent person of each picture, without tracking.

    The box encloses the visible joints; the score is the mean visibility of all joints, in [0, 1].
    """

    def __init__(self) -> None:
        # Without this, the library prints a message for each of its threads.
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            from mediapipe.python.solutions.pose import Pose
        except ImportError as error:
            raise MissingError(
                f"MediaPipe cannot be loaded: {error}", "Install it with pip install 'fommctl[mesh]'."
            ) from error
        self._pose: Any = Pose(static_image_mode=True, model_complexity=COMPLEXITY, min_detection_confidence=CONFIDENCE)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect at most one person in each (H, W, 3) RGB picture, with landmarks (18, 2) in pixels, x before y; NaN
        for joints that are hidden or outside the picture."""
        return [self._person(frame) for frame in frames]

    def _person(self, frame: NDArray[np.uint8]) -> list[Detection]:
        found = self._pose.process(np.ascontiguousarray(frame)).pose_landmarks
        if found is None:
            return []
        rows = np.array([(point.x, point.y, point.visibility) for point in found.landmark])
        return person(rows, frame.shape[0], frame.shape[1])


def person(rows: NDArray[np.float64], height: int, width: int) -> list[Detection]:
    """Convert MediaPipe's landmarks of one person to a detection; empty if fewer than two joints are visible.

    rows: (33, 3): x and y relative to the picture, visibility in [0, 1].  height, width: of the picture, pixels.
    """
    each = [rows[list(part) if isinstance(part, tuple) else [part]] for part in COCO]
    # MediaPipe measures from the edge of the picture, fommctl from the centre of the first pixel.
    points = np.array([part[:, :2].mean(0) for part in each]) * [width, height] - 0.5
    visibility = np.array([part[:, 2].min() for part in each])
    inside = ((points > -0.5) & (points < [width - 0.5, height - 0.5])).all(-1)
    seen = (visibility >= SEEN) & inside
    if seen.sum() < 2:
        return []
    left, top = points[seen].min(0).tolist()
    right, bottom = points[seen].max(0).tolist()
    box = Box(left, top, max(right, left + 1), max(bottom, top + 1))
    return [Detection(box, float(visibility.mean()), np.where(seen[:, None], points, np.nan).astype(np.float32))]
