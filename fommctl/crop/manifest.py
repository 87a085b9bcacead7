"""The progress of `crop`: a journal for resuming, and the manifests in the output folder.

The journal gets one JSON line when a source is begun and one when it is done. A source whose size, date and options
match its last line is not cropped again.
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
    """One clip, as in the manifests; the keys are COLUMNS."""

    source: str
    output: str
    """File name of the clip."""
    start: int | float
    """Seconds since the first frame of the source."""
    end: int | float
    """Seconds since the first frame of the source, exclusive."""
    box: Annotated[list[int | float], Len(4, 4)]
    """Left, top, right and bottom in pixels of the source."""
    size: int
    """Side of the clip in pixels."""
    detector: str
    score: int | float | None
    """Mean score of the detections."""
    frames: int
    fps: str | None
    """Frames per second as a fraction, such as `30000/1001`; None for a picture."""


COLUMNS = tuple(Row.__annotations__)


class Record(BaseModel):
    """A line of the journal: a source whose clips are in progress or done."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    key: str
    """Key of the source (see `key_of`)."""
    name: str
    """Name of the source's clips, before `#`."""
    source: str = ""
    stamp: list[int] = []
    """Size and date of the source (see `stamp`)."""
    options: str | None = None
    """Fingerprint of the options; None while the clips are in progress."""
    rows: list[Row]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        """Refuse names that are not plain file names, because clips are written and deleted by these names."""
        names = [self.name, *(row["output"] for row in self.rows)]
        if not all(map(_is_plain_name, names)) or not all(name.startswith(f"{self.name}#") for name in names[1:]):
            raise ValueError("a name of another folder")
        return self

    @property
    def done(self) -> bool:
        """Whether the source's clips are finished."""
        return self.options is not None


class Manifest:
    """The journal of one output folder for one run; a context manager.

    Entering creates the folder and locks it; leaving writes the manifests. Entering raises OutputError if the folder
    cannot be written to, and UsageError if another run uses it or it has manifests that `crop` did not write (unless
    `overwrite`).
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.folder = folder
        self._overwrite = overwrite
        self._journal = Journal(folder / JOURNAL, Record, hint="Choose another folder with -o.")
        self.records: dict[str, Record] = {}
        """Records by the key of the source."""

    def __enter__(self) -> Self:
        # Must come before a marker is written to the folder.
        self._refuse_foreign_manifests()
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
        """Return whether this source was cropped with these options, and its clips still exist."""
        record = self.records.get(key)
        return (
            record is not None
            and (record.done, record.stamp, record.options) == (True, stamp, options)
            and all((self.folder / row["output"]).is_file() for row in record.rows)
        )

    def begin(self, key: str, name: str) -> None:
        """Record that a source's clips will have this name, before the first is written."""
        rows = self.records[key].rows if key in self.records else []
        self._add(Record(key=key, name=name, rows=rows))

    def fail(self, key: str, before: Record | None) -> None:
        """Restore the record of a source's earlier clips, which a failure leaves unchanged."""
        if before is not None and before.done:
            self._add(before)

    def finish(self, key: str, source: str, stamp: list[int], options: str, rows: list[Row]) -> None:
        """Record a source as done, and delete those clips of an earlier run that it no longer has."""
        old = {row["output"] for row in self.records[key].rows} - {row["output"] for row in rows}
        name = self.records[key].name
        self._add(Record(key=key, name=name, source=source, stamp=stamp, options=options, rows=rows))
        for output in old:
            (self.folder / output).unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """Return all finished clips of the folder, ordered by source and time."""
        return [row for _, record in sorted(self.records.items()) if record.done for row in record.rows]

    def _refuse_foreign_manifests(self) -> None:
        found = [name for name in MANIFESTS if (self.folder / name).exists()]
        if found and not self._journal.path.exists() and not self._overwrite:
            raise UsageError(
                f"{self.folder / found[0]} already exists and is not from crop",
                "Choose another folder with -o, or use --overwrite.",
            )

    def _open(self) -> None:
        self.records = {record.key: record for record in self._journal.read()}
        lost = {key: record for key, record in self._listed().items() if key not in self.records}
        if lost:
            self.records |= lost
            which = f"{len(lost)} source{'' if len(lost) == 1 else 's'}"
            log.warning(
                "%s is damaged; the clips of %s were found in %s instead", self._journal.path, which, MANIFESTS[0]
            )
        remove_stale_files(self.folder)
        self._journal.rewrite(self.records.values())

    def _listed(self) -> dict[str, Record]:
        """Return records for the clips in the manifest of an earlier run, by key; none of them counts as current."""
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
    """Yield the column names, then the cells of each row; a box becomes its four sides, separated by spaces."""
    yield list(COLUMNS)
    for row in rows:
        cells: dict[str, Any] = {**row, "box": " ".join(map(str, row["box"]))}
        yield [cells[column] for column in COLUMNS]


def _is_plain_name(name: str) -> bool:
    """Return whether this is a file name without folders that file systems accept, and not a hidden one."""
    return not _OUTSIDE.search(name) and not name.startswith(".") and 0 < len(os.fsencode(name)) <= _LONGEST_NAME
