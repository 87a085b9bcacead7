"""A tiny synthetic data set: textured shapes that move, turn and grow, with known keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fommctl.api import DatasetSpec, hookimpl

if TYPE_CHECKING:
    from fommctl.api import DatasetAdapter


def _build() -> DatasetAdapter:
    from fommctl_synthetic.dataset import Synthetic

    return Synthetic()


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="synthetic",
        summary="Textured shapes that move, turn and grow; made on the fly, with known keypoints",
        licence="made by this program: free for any use",
        build=_build,
    )
