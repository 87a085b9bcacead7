"""Data sets of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from fommctl.api import DatasetSpec, hookimpl


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="taichi",
        summary="Tai-Chi-HD: chunks of YouTube videos by taichi-metadata.csv",
        licence=(
            "the videos belong to those who published them on YouTube, from where you have to get them yourself, each "
            "as VIDEO_ID.mp4; the table is in data/taichi-loading of "
            "https://github.com/AliaksandrSiarohin/first-order-model"
        ),
        build=lambda: _build("TaiChi"),
    )
    yield DatasetSpec(
        name="fashion",
        summary="Fashion (DwNet): people who turn in dresses, in the folders train and test",
        licence=(
            "the videos belong to the shops that made them; lists and a script that fetches them are at "
            "https://vision.cs.ubc.ca/datasets/fashion/"
        ),
        build=lambda: _build("Fashion"),
    )
    yield DatasetSpec(
        name="bodies",
        summary="A folder of clips of bodies, each as it is",
        licence="that of your own files",
        build=lambda: _build("Bodies"),
    )


def _build(name: str) -> Any:
    return getattr(import_module("fommctl_bodies.datasets"), name)()
