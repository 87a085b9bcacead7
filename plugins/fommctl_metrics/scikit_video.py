"""Loading scikit-video 1.1.11 with current NumPy and SciPy.

Its modules rely on names that NumPy has removed (`np.int`, `np.float`, `np.product`), on `scipy.misc.imresize`, and on
the type promotion of Python floats before NumPy 2. They are executed here with patched `numpy` and `scipy` of their
own; the real modules are not changed. scikit-video's top-level module, which searches the PATH for FFmpeg, is skipped.
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
    """Return the 2 reach + 1 weights of a Gaussian, which sum to 1.

    They are in double precision, as with NumPy 1: in single precision, as with NumPy 2, scikit-video's NIQE is 0.1 %
    off its published values.
    """
    variance = float(np.float32(sigma) ** 2)
    weights = np.exp(-0.5 * np.arange(-reach, reach + 1) ** 2 / variance)
    return list(weights / weights.sum())


REPLACED: Mapping[str, Mapping[str, Any]] = {"utils.mscn": {"gen_gauss_window": gauss_window}}
"""Replacements of functions, by module."""


@cache
def measure(name: str) -> ModuleType:
    """Return the module skvideo.measure.NAME. Raises MissingError if scikit-video is not installed."""
    return _package().load(f"measure.{name}")


@cache
def utilities() -> ModuleType:
    """Return the module skvideo.utils. Raises MissingError if scikit-video is not installed."""
    return _package().load("utils")


@cache
def _package() -> _Package:
    spec = find_spec("skvideo")
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    if folder is None:
        raise MissingError("the package scikit-video is not installed", "Run 'pip install scikit-video'.")
    return _Package(Path(folder))


class _Package:
    """Executes modules of skvideo and resolves their imports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, ModuleType] = {}
        scipy = {"misc": SimpleNamespace(imresize=imresize)}
        self._patched = {
            "numpy": _Patched(np, DROPPED_BY_NUMPY),
            "scipy": _Patched(import_module("scipy"), scipy),
        }

    def load(self, name: str) -> ModuleType:
        """Return the module skvideo.NAME, executed once."""
        if name not in self._loaded:
            file = self._folder.joinpath(*name.split(".")).with_suffix(".py")
            if not file.is_file():
                file = file.with_suffix("") / "__init__.py"
            module = ModuleType(f"skvideo.{name}")
            module.__file__ = str(file)
            vars(module)["__builtins__"] = vars(builtins) | {"__import__": self._importer(name, file)}
            # Before it is executed: utils and utils.edge import each other.
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
    """A proxy of a module, with some names added or replaced."""

    def __init__(self, module: ModuleType, names: Mapping[str, Any]) -> None:
        super().__init__(module.__name__)
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._module, name) and find_spec(f"{self.__name__}.{name}"):
            return import_module(f"{self.__name__}.{name}")
        return getattr(self._module, name)


def imresize(image: NDArray[np.float32], size: float, interp: str = "bicubic", mode: str = "F") -> NDArray[np.float32]:
    """Resize a picture (H, W) with even sides to half its size, as SciPy's imresize(image, 0.5, "bicubic", "F") did by
    Pillow: with a Keys kernel (a = -0.5), widened by the reduction."""
    if (size, interp, mode) != (0.5, "bicubic", "F"):
        raise NotImplementedError(f"imresize(..., {size}, {interp!r}, {mode!r})")
    rows, columns = (_halving(length) for length in image.shape)
    return np.asarray(rows @ image.astype(np.float64) @ columns.T, np.float32)


def _halving(length: int) -> NDArray[np.float64]:
    """Return the weights (length / 2, length) that resample a line to half its length."""
    centres = 2 * np.arange(length // 2)[:, None] + 0.5
    distance = np.abs(np.arange(length) - centres) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    weights /= weights.sum(1, keepdims=True)
    return weights
