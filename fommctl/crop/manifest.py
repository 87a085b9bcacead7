"""The progress of `crop`: a journal that survives a kill, and manifests for people and programs.

The journal has one JSON line when a source is begun and one when it is done. A source whose files, size, date and
options are still those of its last line is not cropped again.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, model_validator, with_config
from typing_extensions import TypedDict

from fommctl.crop.inputs import key_of
from fommctl.errors import UsageError
from fommctl.files import exclusive_folder, read_regular, remove_stale_files, write_csv, write_text
from fommctl.journal import Journal

log = logging.getLogger(__name__)
JOURNAL, MARKER = ".crop.jsonl", ".fommctl-crop"
MANIFESTS = ("manifest.json", "manifest.csv")
_OUTSIDE = re.compile(r"[/\\\0]")
_LONGEST_NAME = 255
"""Bytes of a file name."""


@with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Row(TypedDict):
    """One clip, a line of the manifests; its keys are COLUMNS."""

    source: str
    output: str
    start: int | float
    """Seconds of the source, as `end`."""
    end: int | float
    box: Annotated[list[int | float], Len(4, 4)]
    """Left, top, right and bottom in pixels of the source."""
    size: int
    detector: str
    score: int | float | None
    frames: int
    fps: str | None
    """Frames a second, as a fraction; None for a picture."""


COLUMNS = tuple(Row.__annotations__)


class Record(BaseModel):
    """A line of the journal: a source whose clips are being made, or are done."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    key: str
    name: str
    """Name of its clips, before `#`."""
    source: str = ""
    stamp: list[int] = []
    options: str | None = None
    """Options of the crop; None while the clips are being made."""
    rows: list[Row]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        """Refuse names that lead out of the folder: clips are written and deleted by them."""
        names = [self.name, *(row["output"] for row in self.rows)]
        if not all(map(_plain_name, names)) or not all(name.startswith(f"{self.name}#") for name in names[1:]):
            raise ValueError("a name of another folder")
        return self

    @property
    def done(self) -> bool:
        """Whether its clips are finished."""
        return self.options is not None


class Manifest:
    """The journal of one output folder, open for one run; a context manager that writes the manifests at the end."""

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        """Create the folder. Raises OutputError where it cannot be written to, UsageError where another run is at
        work there or where manifests lie there that `crop` has not written (unless `overwrite`)."""
        self.folder = folder
        self._overwrite = overwrite
        self._journal = Journal(folder / JOURNAL, Record, hint="Choose another folder with -o.")
        self.records: dict[str, Record] = {}
        """Records by the key of the source."""

    def __enter__(self) -> Self:
        # Before a marker is left in a folder of somebody else's.
        self._refuse_strangers()
        with ExitStack() as opened:
            opened.enter_context(exclusive_folder(self.folder, MARKER))
            self._open()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            self._write_manifests()

    def is_current(self, key: str, stamp: list[int], options: str) -> bool:
        """Return whether this source was cropped like this, and its clips are still there."""
        record = self.records.get(key)
        return (
            record is not None
            and (record.done, record.stamp, record.options) == (True, stamp, options)
            and all((self.folder / row["output"]).is_file() for row in record.rows)
        )

    def begin(self, key: str, name: str) -> None:
        """Claim the clips of this name for a source, before the first of them is written."""
        rows = self.records[key].rows if key in self.records else []
        self._add(Record(key=key, name=name, rows=rows))

    def fail(self, key: str, before: Record | None) -> None:
        """Keep the clips that a source which failed has from an earlier run in the manifests: they are as they were."""
        if before is not None and before.done:
            self._add(before)

    def finish(self, key: str, source: str, stamp: list[int], options: str, rows: list[Row]) -> None:
        """Record a source that is done; remove clips of an earlier run that it no longer has."""
        old = {row["output"] for row in self.records[key].rows} - {row["output"] for row in rows}
        name = self.records[key].name
        self._add(Record(key=key, name=name, source=source, stamp=stamp, options=options, rows=rows))
        for gone in old:
            (self.folder / gone).unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """Return every clip of the folder, ordered by source and time."""
        return [row for _, record in sorted(self.records.items()) if record.done for row in record.rows]

    def _refuse_strangers(self) -> None:
        strangers = [name for name in MANIFESTS if (self.folder / name).exists()]
        if strangers and not self._journal.path.exists() and not self._overwrite:
            raise UsageError(
                f"{self.folder / strangers[0]} already exists and is not from crop",
                "Choose another folder with -o, or use --overwrite.",
            )

    def _open(self) -> None:
        self.records = {record.key: record for record in self._journal.read()}
        lost = {key: record for key, record in self._listed().items() if key not in self.records}
        if lost:
            self.records |= lost
            which = f"{len(lost)} source{'' if len(lost) == 1 else 's'}"
            log.warning(
                "%s is damaged: the clips of %s are known from %s alone", self._journal.path, which, MANIFESTS[0]
            )
        remove_stale_files(self.folder)
        self._journal.rewrite(self.records.values())

    def _listed(self) -> dict[str, Record]:
        """Return what the manifest of an earlier run holds, by the key of the source; none of it is current."""
        found: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            for row in json.loads(read_regular(self.folder / MANIFESTS[0])):
                found.setdefault(key_of(Path(row["source"])), []).append(row)
        records = {}
        for key, rows in found.items():
            with suppress(ValueError, TypeError, AttributeError, KeyError):
                name, source = rows[0]["output"].rpartition("#")[0], rows[0]["source"]
                records[key] = Record(key=key, name=name, source=source, options="", rows=rows)
        return records

    def _add(self, record: Record) -> None:
        self.records[record.key] = record
        self._journal.append(record)

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
        cells: dict[str, Any] = {**row, "box": " ".join(map(str, row["box"]))}
        yield [cells[column] for column in COLUMNS]


def _plain_name(name: str) -> bool:
    """Return whether it is the name of a file in this very folder."""
    return not _OUTSIDE.search(name) and not name.startswith(".") and 0 < len(os.fsencode(name)) <= _LONGEST_NAME
