"""Synthetic data sets: textured shapes, a figure and an arm, with known keypoints and flow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from fommctl.api import DatasetSpec, hookimpl

if TYPE_CHECKING:
    from fommctl.api import DatasetAdapter


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    for name, size in (("synthetic", 64), ("synthetic-256", 256)):
        yield DatasetSpec(
            name=name,
            summary=f"Shapes, a figure and an arm in motion, {size} pixels; made on the fly, keypoints and flow known",
            licence="made by this program: free for any use; there is nothing to download, and RAW is not read",
            build=partial(_build, size),
        )
    for name, kind, what in (
        ("synthetic-shapes", "shapes", "Pairs of shapes alone"),
        ("synthetic-turning", "turning", "Pairs of shapes that turn and grow a lot"),
        ("synthetic-reach", "reach", "An arm of three segments that swings widely"),
    ):
        yield DatasetSpec(
            name=name,
            summary=f"{what}, of 48 identities, 64 pixels; docs/reproduction trains on it",
            licence="made by this program: free for any use; there is nothing to download, and RAW is not read",
            build=partial(_build_one, kind),
        )


def _build(size: int) -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(kinds=("shapes", "figure", "arm"), size=size)


def _build_one(kind: str) -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(identities=48, test_identities=8, kinds=(kind,))
