"""The options of `farm emit`, besides those of `animate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fommctl.options import configuration, option

FARM = "Farm"
"""Panel of --help."""
EngineName = Literal["openjd", "opencue", "deadline", "slurm", "flamenco"]


@configuration
class FarmConfig:
    """The engine, the folder of the job, and the division into chunks."""

    engine: Annotated[
        EngineName,
        option(
            FARM,
            "openjd (AWS Deadline Cloud too), opencue, deadline (version 10), slurm or flamenco.",
            metavar="<engine>",
        ),
    ]
    folder: Annotated[
        Path, option(FARM, "New folder for the job, on storage that every machine sees.", "-o", "--folder")
    ]
    result: Annotated[
        Path | None,
        option(
            FARM,
            "Result of the shot, like -o of animate: a movie, or a pattern for pictures, which needs no encoding step. "
            "Default: SOURCE--DRIVING.mp4 in the current folder.",
        ),
    ] = None
    chunk: Annotated[int, Field(gt=0), option(FARM, "Driving frames per task.")] = 50
