"""Synthetic data sets with known keypoints and flow: textured shapes, a walking figure, a robot arm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from fommctl.api import DatasetSpec, hookimpl

if TYPE_CHECKING:
    from fommctl.api import DatasetAdapter

LICENCE = "rendered by fommctl: free for any use; nothing to download, RAW is not read"


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    for name, size in (("synthetic", 64), ("synthetic-256", 256)):
        yield DatasetSpec(
            name=name,
            summary=f"Shapes, a figure and an arm in motion, {size} pixels; rendered on the fly, with true keypoints "
            "and flow",
            licence=LICENCE,
            build=partial(_build, size),
        )
    for name, kind, what in (
        ("synthetic-shapes", "shapes", "Pairs of shapes only"),
        ("synthetic-turning", "turning", "Pairs of shapes that turn and scale a lot"),
        ("synthetic-reach", "reach", "A three-segment arm with wide swings"),
    ):
        yield DatasetSpec(
            name=name,
            summary=f"{what}, 48 identities, 64 pixels; used by docs/reproduction",
            licence=LICENCE,
            build=partial(_build_one, kind),
        )


def _build(size: int) -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(kinds=("shapes", "figure", "arm"), size=size)


def _build_one(kind: str) -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic(identities=48, test_identities=8, kinds=(kind,))
