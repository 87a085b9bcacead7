"""True keypoints of a clip in a file beside it, `NAME.keypoints.npy`, written by preprocess and read by evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError, first_line
from fommctl.files import open_regular

SUFFIX = ".keypoints.npy"
Points = NDArray[np.float64]


def keypoints_path(clip: Path, *, folder: bool | None = None) -> Path:
    """Return the path of a clip's keypoints, which may not exist.

    folder: whether the clip is a folder of pictures, whose name has no suffix; None looks at the disk.
    """
    folder = clip.is_dir() if folder is None else folder
    return clip.with_name(f"{clip.name if folder else clip.stem}{SUFFIX}")


def read_keypoints(clip: Path) -> Points | None:
    """Read the true keypoints of a clip's T frames; return None if there is no file.

    Returns (T, K, 2) in [-1, 1], x before y, corner pixels at -1 and 1, NaN for hidden keypoints. Raises InputError if
    the file cannot be read.
    """
    path = keypoints_path(clip)
    try:
        with open_regular(path) as file:
            points = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except Exception as error:  # Broken headers also raise errors of Python's tokenizer, and MemoryError.
        raise InputError(
            f"the keypoints {path.name} cannot be read: {first_line(error)}", "Preprocess the data again."
        ) from error
    return checked(points, path.name)


def write_keypoints(path: Path, points: Points) -> None:
    """Write keypoints (T, K, 2) to a file for `read_keypoints`."""
    with path.open("wb") as file:
        np.save(file, points, allow_pickle=False)


def checked(points: object, name: str) -> Points:
    """Return keypoints as float64. Raises InputError unless they are floats (T, K, 2).  name: shown in messages."""
    numbers = isinstance(points, np.ndarray) and np.issubdtype(points.dtype, np.floating)
    if not isinstance(points, np.ndarray) or not numbers or points.ndim != 3 or points.shape[2] != 2:
        raise InputError(f"{name}: these are not keypoints", "Expected floats of shape (frames, keypoints, 2).")
    return points.astype(np.float64)
