"""Edits of a face at rest: its pose, and expressions as offsets of single keypoints.

The offsets are small shifts of the keypoints in that part of the face, chosen by hand after the sliders of the
published demo; 1 is about as far as a face goes. They have not been tested with the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fommctl.api.schema import Edits
from fommctl_liveportrait.motion import rotation_matrices

Share = Annotated[float, Field(ge=-1, le=1)]
POINTS = 21
# Offset of (keypoint, coordinate) for a value of 1.
OFFSETS: Mapping[str, Mapping[tuple[int, int], float]] = {
    "smile": {
        (20, 1): -0.01, (14, 1): -0.02, (17, 1): 0.0065, (17, 2): 0.003,
        (13, 1): -0.00275, (16, 1): -0.00275, (3, 1): -0.0035, (7, 1): -0.0035,
    },
    "blink": {(11, 1): 0.02, (15, 1): 0.02, (13, 1): -0.006, (16, 1): -0.006},
    "brows": {(1, 1): 0.02, (2, 1): -0.02},
    "mouth": {(19, 1): 0.03, (19, 2): 0.01, (20, 1): 0.01},
    "gaze_x": {(11, 0): 0.015, (15, 0): 0.02},
    "gaze_y": {(11, 1): -0.02, (15, 1): -0.02},
}  # fmt: skip


class FaceEdits(Edits):
    """Edits of a face."""

    yaw: Annotated[float, Field(ge=-60, le=60)] = 0.0
    """Turn the head, in degrees."""
    pitch: Annotated[float, Field(ge=-30, le=30)] = 0.0
    """Nod, in degrees."""
    roll: Annotated[float, Field(ge=-45, le=45)] = 0.0
    """Tilt the head, in degrees."""
    x: Share = 0.0
    """Move to the right, in half sides of the square."""
    y: Share = 0.0
    """Move down, in half sides of the square."""
    zoom: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    """Scale the face; 1 leaves its size."""
    smile: Share = 0.0
    """Smile; negative is sad."""
    blink: Share = 0.0
    """Close the eyes; negative opens them wide."""
    brows: Share = 0.0
    """Raise the eyebrows."""
    mouth: Share = 0.0
    """Open the mouth."""
    gaze_x: Share = 0.0
    """Look to the side."""
    gaze_y: Share = 0.0
    """Look up."""

    @classmethod
    def motion(cls, rows: Sequence[Self]) -> dict[str, NDArray[np.float32]]:
        """See `Edits`; returns the fields of a `FaceMotion`."""
        count = len(rows)
        angles = torch.tensor([[row.pitch, row.yaw, row.roll] for row in rows]) * (math.pi / 180)
        expression = np.zeros((count, POINTS, 3), np.float32)
        for name, offsets in OFFSETS.items():
            values = np.array([getattr(row, name) for row in rows], np.float32)
            for (point, coordinate), offset in offsets.items():
                expression[:, point, coordinate] += offset * values
        return {
            "rotation": rotation_matrices(*angles.unbind(1)).numpy(),
            "expression": expression,
            "scale": np.array([[row.zoom] for row in rows], np.float32),
            "translation": np.array([[row.x, row.y, 0] for row in rows], np.float32),
            "canonical": np.zeros((count, POINTS, 3), np.float32),
        }
