"""Data sets of robots: BAIR robot pushing, LeRobot data sets, and folders of one's own clips."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import DatasetSpec, hookimpl


@hookimpl
def fommctl_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="bair",
        summary="BAIR robot pushing: the published TFRecords, or folders of frames made from them",
        licence=(
            "belongs to its makers, Ebert, Finn, Lee and Levine (2017), who state no licence: ask them before other "
            "use than research; 30 GB, to be had at https://sites.google.com/view/sna-visual-mpc/"
        ),
        build="fommctl_robots.bair:Bair",
    )
    yield DatasetSpec(
        name="lerobot",
        summary="LeRobot data sets, versions 2 and 3: a clip for each episode and camera",
        licence=(
            "that of each data set, stated in its card; thousands are at https://huggingface.co/datasets?other=LeRobot "
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
