"""The driving frame whose pose is nearest to the source's, for relative motion to start from.

The rule of the published find_best_frame: points are centred and divided by the square root of the area of their convex
hull, so that place and size do not count, and compared by the sum of squared differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fommctl.errors import InputError
from fommctl.networks.transfer import Motion, hull_area

Points = NDArray[np.float32] | NDArray[np.float64]


def nearest_pose_by_landmarks(source: Points, driving: Sequence[Points | None]) -> tuple[int, float]:
    """The number of the nearest driving frame, and its distance.

    source: (N, 2), NaN where a point is hidden.  driving: the same a frame, None where a frame has none: such frames
    are skipped. Points that are hidden on either side do not count; the sum is scaled up for them.
    Raises InputError where no frame can be compared.
    """
    distances = [float("inf") if points is None else _distance(source, points) for points in driving]
    best = int(np.argmin(distances)) if distances else 0
    if not distances or distances[best] == float("inf"):
        raise InputError("no driving frame can be compared with the source's pose", "Give --best-frame first.")
    return best, distances[best]


def nearest_pose_by_keypoints(source: Motion, driving: Motion) -> tuple[int, float]:
    """The same by a model's own keypoints. source: one frame; driving: one or more."""
    return nearest_pose_by_landmarks(
        source.keypoints[0].double().cpu().numpy(), list(driving.keypoints.double().cpu().numpy())
    )


def _distance(source: Points, driving: Points) -> float:
    """Between the poses of two sets of points (N, 2); infinite where they have no pose."""
    seen = np.isfinite(source).all(1) & np.isfinite(driving).all(1)
    wanted, own = pose(source[seen]), pose(driving[seen])
    if wanted is None or own is None:
        return float("inf")
    difference = own - wanted
    return float((difference * difference).sum()) * len(source) / len(own)


def pose(points: Points) -> NDArray[np.float64] | None:
    """Points (N, 2) without place and size; None where they lie on a line, which has no size, and for none."""
    if not len(points):
        return None
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    area = hull_area(torch.from_numpy(centred))
    return centred / np.sqrt(area) if area > 0 else None
