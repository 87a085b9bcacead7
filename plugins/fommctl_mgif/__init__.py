"""The data set MGif: cartoon animals walking and running."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import DatasetSpec, hookimpl


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="mgif",
        summary="MGif (Monkey-Net): a folder of GIFs, optionally with folders train and test",
        licence=(
            "collected from the web by Siarohin et al. (2019); each GIF belongs to whoever drew it; for links, see "
            "https://github.com/AliaksandrSiarohin/first-order-model (README, Datasets)"
        ),
        build="fommctl_mgif.dataset:MovingGifs",
    )
