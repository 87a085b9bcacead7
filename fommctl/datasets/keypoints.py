"""True keypoints of a clip, in a file beside it: `NAME.keypoints.npy`, written by preprocess and read by evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError, first_line
from fommctl.files import open_regular

SUFFIX = ".keypoints.npy"
Points = NDArray[np.float64]


def keypoints_path(clip: Path, *, folder: bool | None = None) -> Path:
    """Return where the keypoints of a clip are, if it has some.

    folder: whether the clip is a folder of pictures, whose name has no ending; None asks the disk.
    """
    folder = clip.is_dir() if folder is None else folder
    return clip.with_name(f"{clip.name if folder else clip.stem}{SUFFIX}")


def read_keypoints(clip: Path) -> Points | None:
    """Read the true keypoints (T, K, 2) of the clip's frames in [-1, 1], x before y, corner pixels at -1 and 1, NaN
    where one is hidden; None where there is no such file. Raises InputError for one that cannot be read."""
    path = keypoints_path(clip)
    try:
        with open_regular(path) as file:
            points = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy lets errors of Python's tokenizer and of memory escape from broken headers.
        raise InputError(
            f"the keypoints {path.name} cannot be read: {first_line(error)}", "Preprocess the data again."
        ) from error
    return checked(points, path.name)


def write_keypoints(path: Path, points: Points) -> None:
    """Write a file that `read_keypoints` reads."""
    with path.open("wb") as file:
        np.save(file, points, allow_pickle=False)


def checked(points: object, name: str) -> Points:
    """Convert keypoints to float64. Raises InputError where they are not of shape (T, K, 2)."""
    numbers = isinstance(points, np.ndarray) and np.issubdtype(points.dtype, np.floating)
    if not isinstance(points, np.ndarray) or not numbers or points.ndim != 3 or points.shape[2] != 2:
        raise InputError(f"{name}: these are not keypoints", "Expected floats of shape (frames, keypoints, 2).")
    return points.astype(np.float64)
