"""Reads LivePortrait's motion templates, which are pickles, without running any code in them.

A pickle contains names of functions to call. Here the few names that arrays of numbers need refer to inert classes that
only store their arguments; any other name is an error.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import InputError

LARGEST = 512 << 20
"""Largest size of a template in bytes; an hour takes a tenth of that."""
MOST_FRAMES = 1_000_000


class _Type:
    """Replaces a numpy data type in a pickle."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if isinstance(state, tuple) and len(state) > 1 and state[1] == ">" else "<"

    def read(self, content: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of this type and shape, as float32. Raises UnpicklingError for invalid types and sizes."""
        if self.code not in ("f2", "f4", "f8", "i4", "i8"):
            raise pickle.UnpicklingError(f"arrays of type {self.code[:20]!r} are not supported")
        kind = np.dtype(self.order + self.code)
        if len(content) != prod(shape) * kind.itemsize or any(side < 0 for side in shape):
            raise pickle.UnpicklingError("the size of an array does not match its shape")
        return np.frombuffer(content, kind).reshape(shape).astype(np.float32)


class _Array:
    """Replaces a numpy array in a pickle: created empty, then filled."""

    value: NDArray[np.float32] = np.zeros(0, np.float32)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("arrays of objects are not supported")
        shape = tuple(int(side) for side in shape)
        self.value = kind.read(content, shape[::-1] if by_columns else shape)
        if by_columns:
            self.value = self.value.transpose()


class _Scalar(_Array):
    """Replaces a numpy scalar in a pickle."""

    def __init__(self, kind: Any = None, content: Any = None, *_: Any) -> None:
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("a scalar is not a number")
        self.value = kind.read(content, ())


_NAMES = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Type, "scalar": _Scalar}
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the inert class for a name. Raises UnpicklingError for names that arrays of numbers do not need."""
        if module not in _MODULES or name not in _NAMES:
            raise pickle.UnpicklingError(f"it refers to {module[:40]}.{name[:40]}, which is not allowed")
        return _NAMES[name]


def read_template(path: Path) -> tuple[float, Mapping[str, NDArray[np.float32]]] | None:
    """Return a template's frame rate and the fields of a `FaceMotion`; None for other kinds of files.

    Raises InputError if the template is damaged or contains anything but numbers.
    """
    if path.suffix.lower() != ".pkl" or not path.is_file():
        return None
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} is too large for a motion template")
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
        return _parts(content)
    except InputError:
        raise
    except Exception as error:  # Damaged pickles can raise any exception.
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{path.name} cannot be read as a motion template: {why}",
            "No code in it was run. Create the template again.",
        ) from error


def _parts(content: Any) -> tuple[float, Mapping[str, NDArray[np.float32]]]:
    frames = content["motion"]
    count = len(frames)
    if not 0 < count <= MOST_FRAMES:
        raise ValueError("it has no frames")

    def stacked(values: list[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
        rows = [np.asarray(getattr(value, "value", value), np.float32).reshape(shape) for value in values]
        whole = np.stack(rows)
        if not np.isfinite(whole).all():
            raise ValueError("it contains numbers that are not finite")
        return whole

    points = (21, 3)
    rotations = [frame["R"] if "R" in frame else frame["R_d"] for frame in frames]
    parts = {
        "rotation": stacked(rotations, (3, 3)),
        "expression": stacked([frame["exp"] for frame in frames], points),
        "scale": stacked([frame["scale"] for frame in frames], (1,)),
        "translation": stacked([frame["t"] for frame in frames], (3,)),
        "canonical": stacked([frame.get("kp", np.zeros(points)) for frame in frames], points),
    }
    eyes, lips = content.get("c_eyes_lst") or [], content.get("c_lip_lst") or content.get("c_d_lip_lst") or []
    if len(eyes) == len(lips) == count:
        parts["openings"] = np.concatenate((stacked(eyes, (2,)), stacked(lips, (1,))), 1)
    rate = float(getattr(content.get("output_fps", 25), "value", content.get("output_fps", 25)))
    if not 0 < rate <= 1000:
        raise ValueError(f"its frame rate is {rate:g}")
    return rate, parts
