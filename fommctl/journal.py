"""Journals: JSON Lines that are only added to, by any number of processes at once, and outlive all of them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from fommctl.errors import FULL_DISK, OutputError
from fommctl.files import write_text

log = logging.getLogger(__name__)
Record = TypeVar("Record", bound=BaseModel)


class Journal(Generic[Record]):
    """One file of records, a line each.

    A line counts once its newline is written. What a killed process left of one, like any line that is no record, is
    passed over when the file is read, and the next record begins on a line of its own.
    """

    def __init__(self, path: Path, record: type[Record], *, hint: str = "Free some space, or write elsewhere.") -> None:
        """hint: for errors, on how to write somewhere else."""
        self.path = path
        self._record = record
        self._hint = hint
        self._position = 0

    def read(self) -> list[Record]:
        """Return all records; none where there is no file. Raises OutputError where it cannot be read."""
        self._position = 0
        return self.read_new()[0]

    def read_new(self) -> tuple[list[Record], bool]:
        """Return the records since the last call, and whether the file was replaced so that they are all there are.

        Raises OutputError where the file cannot be read.
        """
        replaced = self._position == 0
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._position, replaced = 0, True
                file.seek(self._position)
                added = file.read()
        except FileNotFoundError:
            self._position = 0
            return [], True
        except OSError as error:
            raise self._unusable(error) from error
        whole = added.rfind(b"\n") + 1
        self._position += whole
        records = [self._parse(line) for line in added[:whole].split(b"\n") if line.strip()]
        return [record for record in records if record is not None], replaced

    def append(self, record: Record) -> None:
        """Add a record and bring it to the disk. Raises OutputError.

        It is written in one piece, so that records of several processes do not mix.
        """
        line = _line(record)
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                torn = end and (os.lseek(handle, end - 1, os.SEEK_SET), os.read(handle, 1))[1] != b"\n"
                rest = b"\n" + line if torn else line
                # A disk that is nearly full takes a part and refuses the next byte.
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._unusable(error) from error

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file by these records, all or nothing; only for a process that is alone. Raises OutputError."""
        write_text(self.path, b"".join(map(_line, records)).decode("ascii"))

    def _parse(self, line: bytes) -> Record | None:
        try:
            # Not pydantic's own parser: it refuses names of files that are not UTF-8.
            return self._record.model_validate(json.loads(line))
        except (ValueError, ValidationError, RecursionError):
            log.debug("%s: a line is not a record and was left out", self.path)
            return None

    def _unusable(self, error: OSError) -> OutputError:
        if error.errno in FULL_DISK:
            return OutputError(f"the disk is full: {self.path}", "Free some space, and run the same command again.")
        return OutputError(f"cannot use {self.path}: {(error.strerror or str(error)).lower()}", self._hint)


def _line(record: BaseModel) -> bytes:
    values = record.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return f"{json.dumps(values, allow_nan=False)}\n".encode("ascii")
