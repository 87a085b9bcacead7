"""The configuration of `preprocess`, from which its command-line options are built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from fommctl.errors import UsageError
from fommctl.media import Deinterlace
from fommctl.options import Reads, configuration, option

if TYPE_CHECKING:
    from fommctl.host import Host

Fit = Literal["pad", "crop", "stretch"]
CLIPS, RUN = "Clips", "Run"
"""Panels of --help."""
DEFAULT_SIZE = 256
"""Side of the frames in pixels."""


@configuration
class PreprocessConfig:
    """Inputs and options of one run of preprocessing."""

    dataset: Annotated[str, typer.Argument(help="Name of the data set (see 'fommctl plugins list').")]
    output: Annotated[
        Path,
        option(CLIPS, "Folder for train/, test/ and manifest.jsonl; new, or from an earlier run.", "-o", "--output"),
    ]
    raw: Annotated[
        Path | None, typer.Argument(help="Folder with the raw data; leave out for data sets that are generated.")
    ] = None
    format: Annotated[
        Literal["mp4", "mov", "mkv", "webm", "gif", "png"],
        Reads(str.lower),
        option(CLIPS, "mp4, mov, mkv, webm, gif, or png for folders of frames."),
    ] = "mp4"
    size: Annotated[
        int | None,
        Field(ge=2),
        option(CLIPS, "Side of the square frames in pixels. Default: the preset's, else 256."),
    ] = None
    preset: Annotated[str | None, option(CLIPS, "Preset to prepare for; sets the frame size.", "--preset", "-p")] = None
    fit: Annotated[
        Fit,
        option(
            CLIPS,
            "Frames that are not square: pad widens the crop (repeating the border beyond the picture), crop keeps the "
            "middle, stretch distorts them.",
        ),
    ] = "pad"
    deinterlace: Annotated[
        Deinterlace,
        option(
            CLIPS,
            "Interlaced footage: auto makes full frames at its frame rate; field makes one per field, at twice the "
            "rate; off leaves it interlaced.",
        ),
    ] = "auto"
    audio: Annotated[bool, option(CLIPS, "Keep the sound, if any.", "--audio/--no-audio")] = True
    test_fraction: Annotated[
        float,
        Field(ge=0, lt=1),
        option(CLIPS, "Share of the identities for test/, if the data set has no split of its own."),
    ] = 0.1
    seed: Annotated[int, option(CLIPS, "Seed of the choice of these identities.")] = 0
    workers: Annotated[
        int | None, Field(ge=0), option(RUN, "Worker processes; 0: work in this process. Default: one per core.")
    ] = None
    limit: Annotated[int | None, Field(ge=1), option(RUN, "Only the first N clips.")] = None
    verify: Annotated[
        bool,
        option(
            RUN,
            "Compare the hashes of existing clips, not only their sizes.",
        ),
    ] = False

    def conflicts(self) -> Iterator[UsageError]:
        """Yield an error if the format does not support the size."""
        from fommctl.media.containers import resolve_encoding

        name, side = "%d.png" if self.format == "png" else f"clip.{self.format}", self.side
        if resolve_encoding(Path(name)).coded_size(side, side) != (side, side):
            yield UsageError(
                f"{self.format} supports only even sizes, not {side}", "Use --format png or another --size."
            )

    @property
    def side(self) -> int:
        """Side of the frames in pixels."""
        return self.size or DEFAULT_SIZE

    def sized(self, host: Host) -> PreprocessConfig:
        """Return the configuration with the preset's size if none is given. Raises UsageError if it is not square."""
        if self.preset is None or self.size is not None:
            return self
        from fommctl.presets.preset import load_preset

        height, width, _ = load_preset(self.preset, host).frame_shape
        if height != width:
            raise UsageError(f"the frames of preset '{self.preset}' are not square: {width}x{height}", "Give --size.")
        return replace(self, size=height)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values, for plugins."""
        values = {**asdict(self), "raw": None if self.raw is None else str(self.raw), "output": str(self.output)}
        return values | {"size": self.side}
