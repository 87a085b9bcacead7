"""Journals: append-only JSON Lines, written by one process after another."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from fommctl.errors import FULL_DISK, OutputError
from fommctl.files import open_regular, require_in_place, write_text

log = logging.getLogger(__name__)
_LONGEST_LINE = 2**20
Record = TypeVar("Record", bound=BaseModel)


class Journal(Generic[Record]):
    """A file of records, one per line.

    A line is valid once its newline is written. A partial line of a killed process, like any line that is not a record,
    is skipped when reading, and the next record begins on a new line.
    """

    def __init__(self, path: Path, record: type[Record], *, hint: str = "Free some space, or write elsewhere.") -> None:
        """path: the file.  hint: hint of errors, on how to write elsewhere."""
        self.path = path
        self._record = record
        self._hint = hint
        self._position = 0

    def read(self) -> list[Record]:
        """Return all records; none if the file does not exist. Raises OutputError if it cannot be read."""
        self._position = 0
        return self.read_new()[0]

    def read_new(self) -> tuple[list[Record], bool]:
        """Return the records since the last call, and whether the file was replaced, so that these are all records.

        Raises OutputError if the file cannot be read.
        """
        replaced = self._position == 0
        try:
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._position, replaced = 0, True
                file.seek(self._position)
                added = file.read()
        except (FileNotFoundError, NotADirectoryError):
            self._position = 0
            return [], True
        except OSError as error:
            raise self._unusable(error) from error
        whole = added.rfind(b"\n") + 1
        self._position += whole
        lines = [line for line in added[:whole].split(b"\n") if line.strip()]
        records = [parse_line(self._record, line) for line in lines]
        bad = [line for line, record in zip(lines, records, strict=True) if record is None] + [added[whole:]]
        # What a kill has torn, and what later versions add, begins as a record does.
        if damaged := sum(1 for line in bad if line and not line.startswith(b"{")):
            log.warning("%s is damaged: invalid lines were skipped (%d)", self.path, damaged)
        return [record for record in records if record is not None], replaced

    def append(self, record: Record, *, durable: bool = True) -> None:
        """Add a record; only for a process that holds a lock on the file. Raises OutputError.

        durable: sync it to disk, so that a power cut does not lose it.
        """
        line = _line(record)
        require_in_place(self.path)
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                torn = end and (os.lseek(handle, end - 1, os.SEEK_SET), os.read(handle, 1))[1] != b"\n"
                _write(handle, b"\n" + line if torn else line, end)
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._unusable(error) from error

    def cut(self, belongs: Callable[[Record], bool]) -> None:
        """Cut the file, in place, before the first line that is not a record or does not belong.

        If the file is damaged, and not only torn in the last line by a kill, a copy of the whole file is kept beside
        it, with a warning. Raises OutputError.
        """
        length, number = 0, 1
        try:
            with self.path.open("ab+") as file:
                file.seek(0)
                # What is not a line may be as long as the file.
                while line := file.readline(_LONGEST_LINE):
                    record = parse_line(self._record, line) if line.endswith(b"\n") else None
                    if record is None and (line.endswith(b"\n") or not line.startswith(b"{")):
                        aside = _copy_beside(self.path)
                        log.warning("%s is damaged from line %d on: a copy of it is %s", self.path, number, aside)
                    if record is None or not belongs(record):
                        break
                    length, number = length + len(line), number + 1
                file.truncate(length)
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from error

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file by these records, atomically; only for a process with exclusive access. Raises
        OutputError."""
        write_text(self.path, b"".join(map(_line, records)).decode("ascii"))

    def _unusable(self, error: OSError) -> OutputError:
        if error.errno in FULL_DISK:
            return OutputError(f"the disk is full: {self.path}", "Free some space, and run the same command again.")
        return OutputError(f"cannot use {self.path}: {(error.strerror or str(error)).lower()}", self._hint)


def _copy_beside(path: Path) -> Path:
    """Copy a file under a name that is free. Raises OSError."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not aside.exists():
            break
    shutil.copy2(path, aside)
    return aside


def parse_line(record: type[Record], line: str | bytes) -> Record | None:
    """Return the record in a line; None for any other line."""
    try:
        # Not pydantic's own parser: it refuses names of files that are not UTF-8.
        return record.model_validate(json.loads(line))
    except (ValueError, ValidationError, RecursionError):
        return None


def _write(handle: int, text: bytes, end: int) -> None:
    """Append to a file, completely or not at all, so that concurrent readers get whole lines."""
    try:
        # A disk that is nearly full takes a part and refuses the next byte.
        while text:
            text = text[os.write(handle, text) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, end)
        raise


def _line(record: BaseModel) -> bytes:
    values = record.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return f"{json.dumps(values, allow_nan=False)}\n".encode("ascii")
