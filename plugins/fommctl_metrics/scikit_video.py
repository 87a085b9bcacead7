"""scikit-video 1.1.11 on current NumPy and SciPy.

Its modules use names that NumPy has dropped since (`np.int`, `np.float`, `np.product`), SciPy's old
`scipy.misc.imresize`, and the precision that Python's floats gave to NumPy's before version 2. They are run here with
namespaces of their own that have all this; NumPy and SciPy stay as they are for everyone else. scikit-video's top-level
module, which looks for FFmpeg on the PATH, is not run.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import MissingError

DROPPED_BY_NUMPY = {"int": int, "float": float, "complex": complex, "bool": bool, "object": object, "product": np.prod}


def gauss_window(reach: int, sigma: float) -> list[float]:
    """Return 2 reach + 1 weights of a Gaussian, which sum to 1, in double precision as with NumPy 1; in single
    precision, as NumPy 2 computes it, scikit-video's NIQE is 0.1 % off its published values."""
    variance = float(np.float32(sigma) ** 2)
    weights = np.exp(-0.5 * np.arange(-reach, reach + 1) ** 2 / variance)
    return list(weights / weights.sum())


REPLACED: Mapping[str, Mapping[str, Any]] = {"utils.mscn": {"gen_gauss_window": gauss_window}}
"""Replacements of names in each module."""


@cache
def measure(name: str) -> ModuleType:
    """Return the module skvideo.measure.NAME. Raises MissingError where scikit-video is not installed."""
    return _package().load(f"measure.{name}")


@cache
def utilities() -> ModuleType:
    """Return the module skvideo.utils. Raises MissingError where scikit-video is not installed."""
    return _package().load("utils")


@cache
def _package() -> _Package:
    spec = find_spec("skvideo")
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    if folder is None:
        raise MissingError("the package scikit-video is not installed", "Run 'pip install scikit-video'.")
    return _Package(Path(folder))


class _Package:
    """Runs modules of skvideo, whose imports it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, ModuleType] = {}
        scipy = {"misc": SimpleNamespace(imresize=imresize)}
        self._patched = {
            "numpy": _Patched(np, DROPPED_BY_NUMPY),
            "scipy": _Patched(import_module("scipy"), scipy),
        }

    def load(self, name: str) -> ModuleType:
        """Return the module skvideo.NAME."""
        if name not in self._loaded:
            file = self._folder.joinpath(*name.split(".")).with_suffix(".py")
            if not file.is_file():
                file = file.with_suffix("") / "__init__.py"
            module = ModuleType(f"skvideo.{name}")
            module.__file__ = str(file)
            vars(module)["__builtins__"] = vars(builtins) | {"__import__": self._importer(name, file)}
            # Before it is run: utils and utils.edge import each other.
            self._loaded[name] = module
            exec(compile(file.read_bytes(), file, "exec"), vars(module))
            vars(module).update(REPLACED.get(name, {}))
        return self._loaded[name]

    def _importer(self, importing: str, file: Path) -> Callable[..., object]:
        """Return `__import__` for the module skvideo.IMPORTING."""
        package = importing.split(".") if file.name == "__init__.py" else importing.split(".")[:-1]

        def answer(
            name: str,
            names: Mapping[str, Any] | None = None,
            local: Mapping[str, Any] | None = None,
            wanted: Sequence[str] | None = (),
            level: int = 0,
        ) -> object:
            if level:
                return self.load(".".join([*package[: len(package) - level + 1], name]))
            top = name.partition(".")[0]
            return self._patched.get(top) or __import__(name, names, local, wanted or (), level)

        return answer


class _Patched(ModuleType):
    """A module with some names added or replaced."""

    def __init__(self, module: ModuleType, names: Mapping[str, Any]) -> None:
        super().__init__(module.__name__)
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._module, name) and find_spec(f"{self.__name__}.{name}"):
            return import_module(f"{self.__name__}.{name}")
        return getattr(self._module, name)


def imresize(image: NDArray[np.float32], size: float, interp: str = "bicubic", mode: str = "F") -> NDArray[np.float32]:
    """Return (H, W) of even sides at half its size, as SciPy's imresize(image, 0.5, "bicubic", "F") made it: by Pillow,
    that is, with a Keys kernel (a = -0.5) as wide as the reduction asks for."""
    if (size, interp, mode) != (0.5, "bicubic", "F"):
        raise NotImplementedError(f"imresize(..., {size}, {interp!r}, {mode!r})")
    rows, columns = (_halving(length) for length in image.shape)
    return np.asarray(rows @ image.astype(np.float64) @ columns.T, np.float32)


def _halving(length: int) -> NDArray[np.float64]:
    """Return (length / 2, length): weights of the pixels of a line in a line of half its length."""
    centres = 2 * np.arange(length // 2)[:, None] + 0.5
    distance = np.abs(np.arange(length) - centres) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    weights /= weights.sum(1, keepdims=True)
    return weights
