"""The progress of `crop`: a journal that survives a kill, and manifests for people and programs.

The journal has one JSON line when a source is begun and one when it is done. A source whose files, size, date and
options are still those of its last line is not cropped again.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fommctl.api.readers import parse_json
from fommctl.datasets.tables import write_csv
from fommctl.errors import UsageError
from fommctl.files import exclusive_folder, remove_stale_files, write_text
from fommctl.media.movie import output_errors

JOURNAL, MARKER = ".crop.jsonl", ".fommctl-crop"
MANIFESTS = ("manifest.json", "manifest.csv")
COLUMNS = ("source", "output", "start", "end", "box", "size", "detector", "score", "frames", "fps")
_OUTSIDE = re.compile(r"[/\\]")
_LONGEST_NAME = 255
"""Bytes of a file name."""
Row = Mapping[str, Any]
"""One clip, by COLUMNS: start and end in seconds of the source, box [left, top, right, bottom] in its pixels."""


@dataclass(slots=True)
class Record:
    """The last record of one source in the journal."""

    name: str
    """Name of its clips, before `#`."""
    source: str = ""
    stamp: list[int] = field(default_factory=list)
    options: str = ""
    done: bool = False
    rows: list[Row] = field(default_factory=list)


class Manifest:
    """The journal of one output folder, open for one run; a context manager that writes the manifests at the end."""

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        """Create the folder. Raises OutputError where it cannot be written to, UsageError where another run is at
        work there or where manifests lie there that `crop` has not written (unless `overwrite`)."""
        self.folder = folder
        self._overwrite = overwrite
        self._file: IO[str] | None = None
        self.records: dict[str, Record] = {}
        """Records by the key of the source."""

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(exclusive_folder(self.folder, MARKER))
            self._open()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                self._write_manifests()
            finally:
                if self._file is not None:
                    self._file.close()

    def is_current(self, key: str, stamp: list[int], options: str) -> bool:
        """Tell whether this source was cropped like this, and its clips are still there."""
        record = self.records.get(key)
        return (
            record is not None
            and (record.done, record.stamp, record.options) == (True, stamp, options)
            and all((self.folder / row["output"]).is_file() for row in record.rows)
        )

    def begin(self, key: str, name: str) -> None:
        """Claim the clips of this name for a source, before the first of them is written."""
        rows = self.records[key].rows if key in self.records else []
        self.records[key] = Record(name=name, rows=rows)
        self._append({"key": key, "name": name, "rows": rows})

    def fail(self, key: str, before: Record | None) -> None:
        """Keep the clips that a source which failed has from an earlier run in the manifests: they are as they were."""
        if before is not None and before.done:
            self.records[key] = before
            self._append(_line(key, before))

    def finish(self, key: str, source: str, stamp: list[int], options: str, rows: list[Row]) -> None:
        """Record a source that is done; remove clips of an earlier run that it no longer has."""
        old = {row["output"] for row in self.records[key].rows} - {row["output"] for row in rows}
        record = Record(self.records[key].name, source, stamp, options, True, rows)
        self.records[key] = record
        self._append(_line(key, record))
        for name in old:
            (self.folder / name).unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """Return every clip of the folder, ordered by source and time."""
        return [row for _, record in sorted(self.records.items()) if record.done for row in record.rows]

    def _open(self) -> None:
        journal = self.folder / JOURNAL
        strangers = [name for name in MANIFESTS if (self.folder / name).exists()]
        if strangers and not journal.exists() and not self._overwrite:
            raise UsageError(
                f"{self.folder / strangers[0]} exists already and is not from crop",
                "Choose another folder with -o, or use --overwrite.",
            )
        self.records = _read(journal)
        remove_stale_files(self.folder)
        lines = "".join(json.dumps(_line(key, record)) + "\n" for key, record in self.records.items())
        write_text(journal, lines)
        with output_errors(journal):
            self._file = journal.open("a", encoding="ascii")

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        with output_errors(self.folder / JOURNAL):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write_manifests(self) -> None:
        rows = self.rows()
        write_text(self.folder / MANIFESTS[0], json.dumps(rows, indent=1, allow_nan=False) + "\n")
        table = io.StringIO(newline="")
        write_csv(table, table_rows(rows))
        write_text(self.folder / MANIFESTS[1], table.getvalue())


def table_rows(rows: Iterable[Row]) -> Iterator[list[Any]]:
    """Yield the column names and the rows; a box is its four sides with spaces between."""
    yield list(COLUMNS)
    for row in rows:
        cells = {**row, "box": " ".join(map(str, row["box"]))}
        yield [cells[column] for column in COLUMNS]


def _line(key: str, record: Record) -> dict[str, Any]:
    if not record.done:
        return {"key": key, "name": record.name, "rows": record.rows}
    return {
        "key": key,
        "name": record.name,
        "source": record.source,
        "stamp": record.stamp,
        "options": record.options,
        "rows": record.rows,
    }


def _read(journal: Path) -> dict[str, Record]:
    """Read the last record of each source; a line torn by a kill ends the journal."""
    records: dict[str, Record] = {}
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return records
    for line in lines:
        try:
            data = parse_json(line)
            records[_text(data["key"])] = _record(data)
        except (ValueError, KeyError, TypeError):
            break
    return records


def _record(data: Mapping[str, Any]) -> Record:
    """Parse a line. Raises ValueError, KeyError and TypeError for one that is not ours; clips are written and deleted
    by these names, so that none may lead out of the folder."""
    name, rows = _text(data["name"]), data["rows"]
    if not _plain_name(name) or not isinstance(rows, list) or not all(_is_row(row, name) for row in rows):
        raise ValueError
    if "options" not in data:
        return Record(name, rows=rows)
    stamp = data["stamp"]
    if not isinstance(stamp, list) or not all(isinstance(number, int) for number in stamp):
        raise ValueError
    return Record(name, _text(data["source"]), stamp, _text(data["options"]), True, rows)


def _is_row(row: Any, name: str) -> bool:
    if not isinstance(row, dict) or set(row) != set(COLUMNS):
        return False
    box = row["box"]
    texts = all(_text(row[column]) is not None for column in ("source", "output", "detector"))
    # A picture has no rate.
    rated = row["fps"] is None or _text(row["fps"]) is not None
    four = isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)
    numbers = all(isinstance(row[column], int | float) for column in ("start", "end", "size", "frames"))
    scored = row["score"] is None or isinstance(row["score"], int | float)
    own = _plain_name(row["output"]) and row["output"].startswith(f"{name}#")
    return texts and rated and four and numbers and scored and own


def _text(value: Any) -> str:
    """Check a text. Raises ValueError for anything else, and for what cannot be written as a path."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    os.fsencode(value)
    return value


def _plain_name(name: str) -> bool:
    """Tell whether it is the name of a file in this very folder."""
    return not _OUTSIDE.search(name) and not name.startswith(".") and 0 < len(os.fsencode(name)) <= _LONGEST_NAME
