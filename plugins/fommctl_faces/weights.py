"""Locations of the detectors' weights, and hints where some are missing; imports none of their libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fommctl.api import MissingError, offline
from fommctl.api.weights import hub_folder

T = TypeVar("T")

# File names of face-alignment 1.5 in torch.hub's cache.
BLAZEFACE = ("blazeface.pth", "anchors.npy")
SFD = ("s3fd-619a316812.pth",)
FAN = (*SFD, "2DFAN4-11f355bf06.pth.tar")

# Files of the package face_recognition_models.
SIXTY_EIGHT_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
FIVE_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
RESNET = "dlib_face_recognition_resnet_model_v1.dat"


def missing_package(module: str, distribution: str) -> str | None:
    """Return a short reason if `module` is not installed, else None.  distribution: name to install it by."""
    return None if find_spec(module) else f"the package {distribution} is not installed"


def missing_weights(names: Sequence[str]) -> str | None:
    """Return a short reason if face-alignment or one of these weights is missing, else None."""
    absent = [name for name in names if not (hub_folder() / name).is_file()]
    return missing_package("face_alignment", "face-alignment") or (
        f"{' and '.join(absent)} not in {hub_folder()}" if absent else None
    )


def recognition_model(name: str) -> Path | None:
    """Return the path of one of dlib's models in the package face_recognition_models; None if it is not installed.

    The package is not imported: it needs pkg_resources, which current versions of setuptools no longer have.
    """
    package = find_spec("face_recognition_models")
    folders = (package.submodule_search_locations if package else None) or []
    models = [Path(folder) / "models" / name for folder in folders]
    return next((path for path in models if path.is_file()), None)


def missing_recognition_models(*names: str) -> str | None:
    """Return a short reason if dlib or one of these models of face_recognition_models is missing, else None."""
    there = all(recognition_model(name) for name in names)
    reason = None if there else "the package face_recognition_models is not installed"
    return missing_package("dlib", "dlib-bin") or reason


def import_face_alignment(module: str) -> ModuleType:
    """Import a module of face-alignment. Raises MissingError if it or its OpenCV cannot be loaded."""
    try:
        return import_module(f"face_alignment.{module}")
    except ImportError as error:
        # OpenCV links to libGL and libgthread for its windows; servers often lack them.
        raise MissingError(
            f"face-alignment cannot be loaded: {error}",
            "Install it with 'pip install face-alignment'; if libGL is missing, install the system package libgl1, "
            "or 'pip install opencv-python-headless' in place of opencv-python. "
            "The detector dlib-hog works without it.",
        ) from error


def fetch(names: Sequence[str], load: Callable[[], T]) -> T:
    """Call `load`, which downloads missing weights, and return its result.

    Raises MissingError if weights are missing and FOMMCTL_OFFLINE is set or the download fails.
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
