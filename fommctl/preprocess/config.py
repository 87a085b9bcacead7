"""The options of `preprocess`: one frozen configuration, checked as a whole before any work is done."""

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
USUAL_SIZE = 256


@configuration
class PreprocessConfig:
    """Configuration of preprocessing."""

    dataset: Annotated[str, typer.Argument(help="The data set's adapter, by name (see 'fommctl plugins list').")]
    output: Annotated[
        Path,
        option(CLIPS, "Folder for train/, test/ and manifest.jsonl; new, or of an earlier run.", "-o", "--output"),
    ]
    raw: Annotated[
        Path | None, typer.Argument(help="Folder with the raw data; none for data sets that make their own.")
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
    preset: Annotated[str | None, option(CLIPS, "Preset to prepare for: its frame size.", "--preset", "-p")] = None
    fit: Annotated[
        Fit,
        option(
            CLIPS,
            "Frames that are not square: pad adds what is around the subject (beyond the picture, its border), crop "
            "keeps the middle, stretch distorts them.",
        ),
    ] = "pad"
    deinterlace: Annotated[
        Deinterlace,
        option(
            CLIPS,
            "Interlaced footage: auto makes whole pictures at its frame rate, field at twice that, one a field; "
            "off leaves it woven.",
        ),
    ] = "auto"
    audio: Annotated[bool, option(CLIPS, "Keep the sound where there is some.", "--audio/--no-audio")] = True
    test_fraction: Annotated[
        float,
        Field(ge=0, lt=1),
        option(CLIPS, "Share of the identities to test on, where the data set does not say."),
    ] = 0.1
    seed: Annotated[int, option(CLIPS, "Chooses among those identities.")] = 0
    workers: Annotated[int | None, Field(ge=0), option(RUN, "Processes. Default: one a processor.")] = None
    """0: none but this one."""
    limit: Annotated[int | None, Field(ge=1), option(RUN, "Only so many clips from the first on.")] = None
    verify: Annotated[
        bool,
        option(
            RUN,
            "Read what is there already and compare hashes, not only sizes.",
        ),
    ] = False

    def conflicts(self) -> Iterator[UsageError]:
        """Yield a size that the format does not hold."""
        from fommctl.media.containers import resolve_encoding

        name, side = "%d.png" if self.format == "png" else f"clip.{self.format}", self.side
        if resolve_encoding(Path(name)).coded_size(side, side) != (side, side):
            yield UsageError(f"{self.format} supports even sizes only, not {side}", "Use --format png, or --size.")

    @property
    def side(self) -> int:
        """Side of the frames in pixels."""
        return self.size or USUAL_SIZE

    def sized(self, host: Host) -> PreprocessConfig:
        """Return the same with the size of the preset where none is given. Raises UsageError."""
        if self.preset is None or self.size is not None:
            return self
        from fommctl.presets.preset import load_preset

        height, width, _ = load_preset(self.preset, host).frame_shape
        if height != width:
            raise UsageError(f"the frames of preset '{self.preset}' are not square: {width}x{height}", "Give --size.")
        return replace(self, size=height)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for listeners."""
        values = {**asdict(self), "raw": None if self.raw is None else str(self.raw), "output": str(self.output)}
        return values | {"size": self.side}
