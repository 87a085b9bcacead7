"""Safe readers for the files that describe data sets: CSV tables, JSON, and pictures inside other files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fommctl.errors import InputError

if TYPE_CHECKING:
    from _csv import Reader

    import numpy as np
    from numpy.typing import NDArray

_DELIMITERS = (",", ";", "\t")
LONGEST_LINE = 1 << 20
"""Maximum characters per line; rows of tables and manifests have some hundreds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    line: int
    """Number of the row's last line in the file, from 1."""
    cells: Mapping[str, str]
    """Text by column name, without surrounding blanks; empty if the row is too short."""


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names in the first line of a CSV file; none if it is empty. Raises InputError if it cannot be read."""
    with _opened(path) as reader:
        return tuple(name.strip() for name in next(reader, []))


def read_table(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file, except empty ones, with all columns.

    The file is UTF-8 with or without a byte order mark, with any line ends, and with commas, tabs, or semicolons as
    spreadsheets of many languages write them. Raises InputError if it cannot be read, has no rows or lacks a `wanted`
    column.
    """
    found = columns_of(path)
    if not found:
        raise InputError(f"{path} is empty", "Download the file again, or move it away.")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}",
            f"Its first line should name the columns {', '.join(wanted)}; it names {', '.join(found)}.",
        )
    count = 0
    with _opened(path) as reader:
        next(reader)
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                count += 1
                padded = stripped + [""] * (len(found) - len(stripped))
                yield Row(reader.line_num, dict(zip(found, padded, strict=False)))
    if not count:
        raise InputError(f"{path} has no rows", "It has only a header line; download the file again.")


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of an open file. Raises InputError for a line longer than LONGEST_LINE, before reading all of it.

    path: the file's path, for the message.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(
                f"{path}, line {number} is longer than {LONGEST_LINE:,} characters", "Is this the right file?"
            )
        yield line


@contextmanager
def _opened(path: Path) -> Iterator[Reader]:
    """Open a CSV file and find its delimiter; every error while reading it becomes an InputError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_LINE)
            file.seek(0)
            yield csv.reader(bounded_lines(file, path), delimiter=max(_DELIMITERS, key=first.count))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "Save it as CSV in UTF-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its name and permissions.") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV table: {error}", "Save it as CSV in UTF-8.") from error


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    finite: refuse NaN, Infinity and numbers too large for a float, which the standard lacks but some programs write.
    Raises ValueError for invalid JSON, too deep nesting and integers of too many digits.
    """
    try:
        if not finite:
            return json.loads(text)
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def decode_picture(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a PNG, a JPEG or any other picture that fommctl reads to (H, W, 3) uint8 sRGB.

    data: content of the file.  name: its name in messages.
    Raises InputError if it is damaged, too large or not a picture.
    """
    from fommctl.media.stills import decode_bytes

    return decode_bytes(data, name)
