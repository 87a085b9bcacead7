"""Synthetic data sets: textured shapes, a figure and an arm, with known keypoints and flow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from fommctl.api import DatasetSpec, hookimpl

if TYPE_CHECKING:
    from fommctl.api import DatasetAdapter

fommctl_api = "1.0"


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    for name, size in (("synthetic", 64), ("synthetic-256", 256)):
        yield DatasetSpec(
            name=name,
            summary=f"Shapes, a figure and an arm in motion, {size} pixels; made on the fly, keypoints and flow known",
            licence="made by this program: free for any use; there is nothing to download, and RAW is not read",
            build=partial(_build, size),
        )
    yield DatasetSpec(
        name="synthetic-shapes",
        summary="Pairs of shapes alone, of 48 identities, 64 pixels; what 'fommctl reproduce' trains on",
        licence="made by this program: free for any use; there is nothing to download, and RAW is not read",
        build=_build_shapes,
    )


def _build(size: int) -> DatasetAdapter:
    from fommctl_synthetic.casts import CASTS
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(kinds=tuple(CASTS), size=size)


def _build_shapes() -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(identities=48, test_identities=8)
