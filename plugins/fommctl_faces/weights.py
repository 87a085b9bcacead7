"""Places of the detectors' weights, and whether they are there; nothing here imports a detector's library."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fommctl.api import MissingError, offline

T = TypeVar("T")

# The names under which face-alignment 1.5 keeps its downloads in the cache of torch.hub.
BLAZEFACE = ("blazeface.pth", "anchors.npy")
SFD = ("s3fd-619a316812.pth",)
FAN = (*SFD, "2DFAN4-11f355bf06.pth.tar")

# The files of the package face_recognition_models.
SIXTY_EIGHT_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
FIVE_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
RESNET = "dlib_face_recognition_resnet_model_v1.dat"


def hub_folder() -> Path:
    """Return the folder of torch.hub's downloads, by its documented rule, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def missing_package(module: str, distribution: str) -> str | None:
    """Return None where `module` is installed, else a short reason."""
    return None if find_spec(module) else f"the package {distribution} is not installed"


def missing_weights(names: Sequence[str]) -> str | None:
    """Return None where face-alignment and these of its weights are there, else a short reason."""
    absent = [name for name in names if not (hub_folder() / name).is_file()]
    return missing_package("face_alignment", "face-alignment") or (
        f"{' and '.join(absent)} not in {hub_folder()}" if absent else None
    )


def recognition_model(name: str) -> Path | None:
    """Return the file of one of dlib's models in the package face_recognition_models, if that is installed.

    The package is not imported: doing so needs pkg_resources, which new versions of setuptools no longer have.
    """
    package = find_spec("face_recognition_models")
    folders = (package.submodule_search_locations if package else None) or []
    models = [Path(folder) / "models" / name for folder in folders]
    return next((path for path in models if path.is_file()), None)


def missing_recognition_models(*names: str) -> str | None:
    """Return None where dlib and these models of face_recognition_models are there, else a short reason."""
    there = all(recognition_model(name) for name in names)
    reason = None if there else "the package face_recognition_models is not installed"
    return missing_package("dlib", "dlib-bin") or reason


def import_face_alignment(module: str) -> ModuleType:
    """Return a module of face-alignment. Raises MissingError where it, or the OpenCV that it needs, cannot be
    loaded."""
    try:
        return import_module(f"face_alignment.{module}")
    except ImportError as error:
        # libGL and libgthread belong to OpenCV's windows, which a bare server does not have.
        raise MissingError(
            f"face-alignment cannot be loaded: {error}",
            "Install it with 'pip install face-alignment'; if libGL is missing, install the system's package "
            "libgl1, or 'pip install opencv-python-headless' in place of opencv-python. "
            "The detector dlib-hog works without it.",
        ) from error


def fetch(names: Sequence[str], load: Callable[[], T]) -> T:
    """Return what `load` returns; it may download these weights unless FOMMCTL_OFFLINE is set.

    Raises MissingError where weights are absent and may or can not be downloaded.
    """
    absent = [name for name in names if not (hub_folder() / name).is_file()]
    hint = (
        f"Put {' and '.join(absent)} into {hub_folder()}, or use the detector dlib-hog (dlib-68 for landmarks), which "
        "needs no download."
    )
    if absent and offline():
        raise MissingError(f"the weights {' and '.join(absent)} are missing and FOMMCTL_OFFLINE is set", hint)
    try:
        return load()
    except OSError as error:
        if not absent:
            raise
        raise MissingError(f"the weights {' and '.join(absent)} could not be downloaded: {error}", hint) from error
