"""18 joints of a body by MediaPipe Pose (BlazePose, Bazarevsky et al. 2020).

Of the pose networks that can be installed, MediaPipe's is maintained (by Google), free (Apache 2.0) and complete: the
weights lie in the package, so that it works offline. The wheels up to 0.10.21 hold them; later ones download models.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import Box, Detection, MissingError

# The full network; the light and the heavy one are not in the package.
COMPLEXITY = 1
# Of a person in the picture, and of joints: MediaPipe's own limit.
CONFIDENCE = 0.5
SEEN = 0.5

NOSE, SHOULDERS = 0, (11, 12)
COCO = (0, SHOULDERS, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""MediaPipe's numbers of the 18 joints that OpenPose derives from COCO, in its order: nose, neck, then shoulder, elbow
and wrist of the right arm and of the left, hip, knee and ankle of the right leg and of the left, eyes, ears (right
before left). The neck is the middle of the shoulders, as in the training data of OpenPose, and seen where both are."""


class PoseDetector:
    """The most prominent person of each picture, found anew in each. The box is drawn around the joints that are seen;
    the score is the mean of the joints' visibility."""

    def __init__(self) -> None:
        # The library prints a message for each of its threads.
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            from mediapipe.python.solutions.pose import Pose
        except ImportError as error:
            raise MissingError(
                f"MediaPipe cannot be loaded: {error}", "Install it with pip install 'fommctl[mesh]'."
            ) from error
        self._pose: Any = Pose(static_image_mode=True, model_complexity=COMPLEXITY, min_detection_confidence=CONFIDENCE)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Detect at most one person in each (H, W, 3) picture, with (18, 2) landmarks; NaN for joints that are hidden
        or outside the picture."""
        return [self._person(frame) for frame in frames]

    def _person(self, frame: NDArray[np.uint8]) -> list[Detection]:
        found = self._pose.process(np.ascontiguousarray(frame)).pose_landmarks
        if found is None:
            return []
        rows = np.array([(point.x, point.y, point.visibility) for point in found.landmark])
        return person(rows, frame.shape[0], frame.shape[1])


def person(rows: NDArray[np.float64], height: int, width: int) -> list[Detection]:
    """Return the person of these landmarks.

    rows: (33, 3) of MediaPipe: x and y in parts of the picture, visibility in [0, 1]. Empty where fewer than two joints
    are seen, which have no box.
    """
    each = [rows[list(part) if isinstance(part, tuple) else [part]] for part in COCO]
    # Its coordinates count from edge to edge of the picture, ours from the centre of the first pixel.
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
