"""What `fommctl animate` makes by default of a source and a driving clip, as a stream of parts: what its user gets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig
from fommctl.animate.defaults import GENERAL
from fommctl.animate.engine import Engine
from fommctl.api.metrics import FrameChunk
from fommctl.evaluate.footage import Footage, groups
from fommctl.evaluate.predictions import CHUNK, Part, Stream
from fommctl.media.images_out import write_png
from fommctl.media.resampling import Pixels

MOST_PIXELS = 2**24
"""In the frames of a chunk: results are as large as their source pictures."""
RESULT = "result.mkv"
"""FFV1: the frames as they were made."""


def defaults() -> dict[str, Any]:
    """The options of `animate` where neither its user nor a preset says otherwise, as JSON values: what its results
    depend on beside its inputs and the model."""
    return {**AnimateConfig(source=Path("source"), driving=Path("driving")).to_json(), **GENERAL}


def animated(engine: Engine, source: Path, driving: Path, most: int | None) -> Stream:
    """The result of `animate` without options, beside the driving video as it is and the source picture as a whole.

    source: a clip whose first frame is meant, or a picture.  most: frames of the driving clip; None: all. Raises
    InputError, also while it is read.
    """
    film = Footage(driving, limit=most)
    rate = Fraction(film.rate)
    warnings: list[str] = []

    def parts() -> Iterator[Part]:
        picture = next(iter(Footage(source, limit=1)))
        with tempfile.TemporaryDirectory(prefix="fommctl-evaluate-") as name:
            folder = Path(name)
            config = AnimateConfig(
                source=_readable(source, picture, folder / "source.png"),
                driving=_playable(film, folder / "driving"),
                output=folder / RESULT,
                end=None if most is None else most / rate,
                audio="none",
            )
            made = animate.run(config, engine)
            warnings.extend(made.warnings)
            pixels = max(made.width * made.height, picture.shape[0] * picture.shape[1], _area(film))
            yield from _beside(Footage(made.output), film, picture, max(1, min(CHUNK, MOST_PIXELS // pixels)), warnings)
        warnings.extend(film.warnings)

    return Stream(parts(), float(rate), warnings)


def _beside(made: Footage, film: Footage, picture: Pixels, size: int, warnings: list[str]) -> Iterator[Part]:
    first = 0
    nothing: list[Pixels] = []
    for ours, theirs in zip_longest(groups(iter(made), size), groups(iter(film), size), fillvalue=nothing):
        common = min(len(ours), len(theirs))
        if common:
            yield Part(FrameChunk(np.stack(ours[:common]), None, None, first), picture, np.stack(theirs[:common]))
        first += common
        if len(ours) != len(theirs):
            which = "result" if len(ours) > len(theirs) else "driving clip"
            warnings.append(f"the {which} has more frames than the other; the first {first} were compared")
            return


def _area(film: Footage) -> int:
    return 1 if film.info is None else film.info.width * film.info.height


def _readable(source: Path, picture: Pixels, target: Path) -> Path:
    """The source itself where it is a file that shows one picture first, else its first frame as a file."""
    if source.is_file() and not Footage(source).strip:
        return source
    write_png(target, picture)
    return target


def _playable(film: Footage, folder: Path) -> Path:
    """The driving clip itself, or the frames of a strip, which `animate` takes for one picture, in a folder."""
    if not film.strip:
        return film.path
    folder.mkdir()
    for number, pixels in enumerate(film):
        write_png(folder / f"{number:07d}.png", pixels)
    return folder
