"""Edits a portrait by named parameters of the model family, without a driving video.

The parameters become a driving motion whose first frame is neutral, and which is animated like any other.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fommctl.animate.config import AnimateConfig
from fommctl.animate.engine import Engine
from fommctl.animate.motion import Motion
from fommctl.animate.recording import AnimateResult
from fommctl.animate.run import run as animate
from fommctl.api.schema import Edits
from fommctl.edit.config import EditConfig
from fommctl.errors import InputError, UsageError
from fommctl.files import publish, temporary_path
from fommctl.media.files import check_file
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import check_target
from fommctl.options import backend_options
from fommctl.workers import Progress

LONGEST = 100_000
"""Most rows of a table of curves, and most frames."""
TIME = "time"
"""Name of the column of times, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """The parameters of one frame."""

    time: float
    """Seconds since the first frame."""
    values: dict[str, str]
    """Values as text, by name."""


def run(config: EditConfig, engine: Engine, report: Progress | None = None) -> AnimateResult:
    """Edit one portrait. Raises UsageError, InputError and OutputError; then nothing is left at the output."""
    family = engine.family
    names = family.edits()
    if names is None:
        raise UsageError(f"{family.name} models do not support editing", "Use another model, such as liveportrait.")
    constant = [part for text in config.edits for part in text.split(",") if part.strip()]
    rows = [Row(0.0, {})] if config.curves is None else read_curves(config.curves, float(config.fps))
    if config.still and len(rows) > 1:
        raise UsageError(
            f"{config.output.name} is a single picture, but the curves have {len(rows)} frames",
            "Use a video as output, such as -o x.mp4.",
        )
    edits: list[Edits] = []
    for row in rows:
        given = [*constant, *(f"{name}={value}" for name, value in row.values.items())]
        chosen = backend_options(names, given, family.name)
        assert isinstance(chosen, Edits)
        edits.append(chosen)
    if config.still:
        check_target(config.output, config.overwrite, [config.source])
    parts = names.motion([names(), *edits])
    with tempfile.TemporaryDirectory(prefix="fommctl-edit-") as name:
        folder = Path(name)
        driving = folder / "edits.motion"
        motion = Motion.imported(driving, float(config.fps), parts, family=family.name, model=engine.model.name)
        motion.save(driving)
        output = folder / "%03d.png" if config.still else config.output
        result = animate(
            AnimateConfig(
                source=config.source,
                driving=driving,
                output=output,
                motion="relative",
                frames="2-",
                crop=config.crop,
                audio="none",
                overwrite=config.overwrite,
            ),
            engine,
            report,
        )
        if config.still:
            (picture,) = folder.glob("*.png")
            temporary = temporary_path(config.output)
            with output_errors(config.output):
                temporary.write_bytes(picture.read_bytes())
                publish(temporary, config.output, overwrite=config.overwrite)
            result = replace(result, output=config.output)
    return result


def read_curves(path: Path, rate: float) -> list[Row]:
    """Read curves from a CSV file, interpolated to one row per frame.  rate: frames per second.

    Raises InputError, with the line, if the file is missing or invalid.
    """
    check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} is not a CSV file: {error}") from error
    if not table or len(table) > LONGEST:
        raise InputError(f"{path.name} has {len(table)} rows", f"Use 1 to {LONGEST} rows, and a header line.")
    names = [name for name in table[0] if name and name != TIME]
    numbers = np.array([[_number(row, name, path, line) for name in names] for line, row in enumerate(table, 2)])
    if TIME not in table[0]:
        return [Row(index / rate, _texts(names, row)) for index, row in enumerate(numbers)]
    times = np.array([_number(row, TIME, path, line) for line, row in enumerate(table, 2)])
    if (np.diff(times) <= 0).any() or times[0] < 0 or times[-1] * rate > LONGEST:
        raise InputError(
            f"invalid times in {path.name}", f"They must increase from 0 or more, and end before frame {LONGEST}."
        )
    moments = np.arange(max(1, round(times[-1] * rate) + 1)) / rate
    curves = np.stack([np.interp(moments, times, column) for column in numbers.T], 1)
    return [Row(float(moment), _texts(names, row)) for moment, row in zip(moments, curves, strict=True)]


def _texts(names: Sequence[str], row: np.ndarray) -> dict[str, str]:
    return {name: repr(float(value)) for name, value in zip(names, row, strict=True)}


def _number(row: dict[str, str], name: str, path: Path, line: int) -> float:
    try:
        value = float(row[name] or 0)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}, line {line}: {name} is '{row[name]}', not a number") from error
    if not np.isfinite(value):
        raise InputError(f"{path.name}, line {line}: {name} is not finite")
    return value
