"""The configuration of `edit`, from which its command-line options are built."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from fommctl.media.output_paths import is_pattern
from fommctl.media.times import parse_rate
from fommctl.options import Reads, configuration

RATE = Fraction(25)
PICTURE = ".png"


@configuration
class EditConfig:
    """Inputs and options of one edit."""

    source: Annotated[Path, typer.Argument(help="The portrait.", show_default=False)]
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Result: a picture (.png); with --curves, any format of 'animate'."),
    ]
    edits: Annotated[
        tuple[str, ...],
        typer.Option(
            "-O",
            "--option",
            metavar="NAME=VALUE,...",
            help="What to change, and by how much; 'fommctl plugins show BACKEND' lists the names.",
        ),
    ] = ()
    curves: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with a column per name: one row per frame or, with a column 'time' (seconds), one row per "
            "keyframe, interpolated linearly."
        ),
    ] = None
    fps: Annotated[Fraction, Reads(parse_rate), typer.Option(help="Frame rate of the result with --curves.")] = RATE
    crop: Annotated[str, typer.Option(help="auto finds the face; X,Y,SIZE or none, as for 'animate'.")] = "auto"
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")] = False

    @property
    def still(self) -> bool:
        """Whether the result is a single picture."""
        return self.output.suffix.lower() == PICTURE and not is_pattern(self.output)
