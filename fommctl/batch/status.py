"""status.jsonl: what became of the jobs, one line a change, written by any number of batches at once."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock

from fommctl.api import plain_json
from fommctl.batch.stamps import Stamp
from fommctl.errors import FULL_DISK, OutputError

log = logging.getLogger(__name__)
FILE = "status.jsonl"
State = Literal["started", "done", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What the file says of one output, in the end."""

    state: State
    key: str
    """Content hash of inputs, model and options."""
    parts: Mapping[str, str]
    """That of each of them, so that a change has a name."""
    attempt: int
    error: Mapping[str, Any] | None
    """`message`, `hint` and `exit_code` of the last failure."""
    result: Mapping[str, Any] | None
    stamp: Stamp | None
    """Of the output that was written last, also where a later attempt failed."""
    number: int
    """How many lines there were before."""


class Status:
    """The status file; several processes may read and add to it at once."""

    def __init__(self, path: Path, lock: Path) -> None:
        self.path = path
        self._lock = FileLock(lock, thread_local=False)
        self._records: dict[str, Record] = {}
        self._read = 0
        self._lines = 0

    def identity(self, output: Path) -> str:
        """What an output is called in the file: relative to its folder where it lies below it, else its whole path."""
        real, folder = Path(os.path.realpath(output)), Path(os.path.realpath(self.path.parent))
        return real.relative_to(folder).as_posix() if real.is_relative_to(folder) else str(real)

    def of(self, output: Path) -> Record | None:
        """The last word on an output, as of the last `refresh`."""
        return self._records.get(self.identity(output))

    def refresh(self) -> None:
        """Read what was added. A line that is no record (a torn one of a killed process) is left out. Raises
        OutputError where the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:
                    # Somebody has removed it, or put another one in its place.
                    self._read, self._records = 0, {}
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(self.path, error) from error
        whole = added.rfind(b"\n") + 1
        self._read += whole
        for line in added[:whole].splitlines():
            self._lines += 1
            if line.strip() and not self._take(line):
                log.debug("%s: a line is no record and was left out", self.path)

    def _take(self, line: bytes) -> bool:
        try:
            found = plain_json.parse(line)
            output, state = found["output"], found["state"]
            if not isinstance(output, str) or state not in get_args(State):
                return False
            before = self._records.get(output)
            stamp = Stamp(found["size"], found["mtime_ns"]) if state == "done" and "size" in found else None
            parts, error, result = (found.get(name) for name in ("parts", "error", "result"))
            record = Record(
                state=state,
                key=str(found["key"]),
                parts=parts if isinstance(parts, dict) else {},
                attempt=int(found.get("attempt", 1)),
                error=error if isinstance(error, dict) else None,
                result=result if isinstance(result, dict) else None,
                stamp=stamp,
                number=self._lines,
            )
        except (ValueError, KeyError, TypeError):
            return False
        if state != "done" and before is not None:
            record = replace(record, stamp=before.stamp)
        self._records[output] = record
        return True

    def add(self, output: Path, state: State, *, key: str, parts: Mapping[str, str], attempt: int, **more: Any) -> None:
        """One line, whole or not at all to whoever reads it. Raises OutputError where it cannot be written."""
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "output": self.identity(output),
            "state": state,
            "key": key,
            "parts": dict(parts),
            "attempt": attempt,
            **more,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        try:
            with self._lock:
                self._append(f"{json.dumps(line)}\n".encode())
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            end = os.lseek(handle, 0, os.SEEK_END)
            # The torn last line of a killed process must not swallow this one.
            torn = end and (os.lseek(handle, end - 1, os.SEEK_SET), os.read(handle, 1))[1] != b"\n"
            rest = b"\n" + line if torn else line
            # In one piece, but where the disk is nearly full: the system then takes a part and refuses the next byte.
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)


def _unusable(path: Path, error: OSError) -> OutputError:
    if error.errno in FULL_DISK:
        return OutputError(f"the disk is full: {path}", "Free some space; the same command goes on where this stopped.")
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"cannot use {path}: {reason}", "Choose another file with --status.")
