"""Data sets of whole bodies, and a body detector."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from fommctl.api import DatasetSpec, DetectorSpec, hookimpl


@hookimpl
def fommctl_detectors() -> Iterator[DetectorSpec]:
    yield DetectorSpec(
        name="pose",
        summary="MediaPipe Pose, with 18 COCO joints; needs the package mediapipe (extra mesh)",
        subject="body",
        build="fommctl_bodies.pose:PoseDetector",
        ready=lambda: None if find_spec("mediapipe") else "the package fommctl[mesh] is not installed",
        priority=10,
        landmarks=18,
        metric_priority=10,
        packages=("mediapipe",),
    )


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="taichi",
        summary="Tai-Chi-HD: chunks of YouTube videos by taichi-metadata.csv",
        licence=(
            "the videos belong to the people who published them on YouTube; download them yourself, each as "
            "VIDEO_ID.mp4; the table is in data/taichi-loading of "
            "https://github.com/AliaksandrSiarohin/first-order-model"
        ),
        build="fommctl_bodies.datasets:TaiChi",
    )
    yield DatasetSpec(
        name="fashion",
        summary="Fashion (DwNet): models turning in dresses, in the folders train and test",
        licence=(
            "the videos belong to the shops that made them; the lists and a download script are at "
            "https://vision.cs.ubc.ca/datasets/fashion/"
        ),
        build="fommctl_bodies.datasets:Fashion",
    )
    yield DatasetSpec(
        name="bodies",
        summary="A folder of clips of bodies, used as they are",
        licence="that of your own files",
        build="fommctl_bodies.datasets:Bodies",
    )
