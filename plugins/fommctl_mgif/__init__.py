"""The data set MGif: cartoon animals that walk and run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fommctl.api import DatasetSpec, hookimpl

if TYPE_CHECKING:
    from fommctl.api import DatasetAdapter


def _build() -> DatasetAdapter:
    from fommctl_mgif.dataset import MovingGifs

    return MovingGifs()


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="mgif",
        summary="MGif (Monkey-Net): a folder of GIFs, with folders train and test or without",
        licence=(
            "collected from the web by Siarohin et al. (2019); each GIF belongs to whoever drew it; the links to it "
            "are in https://github.com/AliaksandrSiarohin/first-order-model (README, Datasets)"
        ),
        build=_build,
    )
