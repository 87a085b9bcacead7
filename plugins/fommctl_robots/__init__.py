"""Robot data sets: BAIR robot pushing, LeRobot data sets, and plain folders."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import DatasetSpec, hookimpl


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="bair",
        summary="BAIR robot pushing: the published TFRecords, or folders of frames extracted from them",
        licence=(
            "belongs to its authors, Ebert, Finn, Lee and Levine (2017), who state no licence: ask them before any use "
            "other than research; 30 GB at https://sites.google.com/view/sna-visual-mpc/"
        ),
        build="fommctl_robots.bair:Bair",
    )
    yield DatasetSpec(
        name="lerobot",
        summary="LeRobot data sets, versions 2 and 3: one clip per episode and camera",
        licence=(
            "stated in the card of each data set; thousands are at https://huggingface.co/datasets?other=LeRobot "
            "(`hf download OWNER/NAME --repo-type dataset --local-dir RAW`)"
        ),
        build="fommctl_robots.lerobot:LeRobot",
    )
    yield DatasetSpec(
        name="robots",
        summary="A folder of clips or GIFs of robots",
        licence="that of your own files",
        build="fommctl_robots.plain:Robots",
    )
