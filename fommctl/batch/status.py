"""The status file, status.jsonl: one line per change of a job's state, written by any number of batches at once.

Beside it is the folder `.fommctl-batch` with the locks: one for the file and one for each output that is rendered.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fommctl.errors import OutputError
from fommctl.files import FileFingerprint, locked, text_sha256
from fommctl.journal import Journal
from fommctl.media.output_paths import is_pattern, matching

FILE = "status.jsonl"
FOLDER = ".fommctl-batch"
_PATIENCE_S = 60.0
"""Seconds to wait for another batch that is adding a line."""
State = Literal["started", "done", "failed", "interrupted"]


class Record(BaseModel):
    """A line of the file: the state of one output."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: str = ""
    output: str
    state: State
    key: str
    """Hash of inputs, model and options."""
    parts: dict[str, str] = {}
    """Hash of each of them, to tell which has changed."""
    attempt: int = 1
    error: dict[str, Any] | None = None
    """`message`, `hint` and `exit_code` of a failure."""
    result: dict[str, Any] | None = None
    seconds: float | None = None
    size: int | None = None
    mtime_ns: int | None = None
    """Time of writing of the last output, also after a later attempt that failed."""
    host: str = ""
    pid: int = 0

    @property
    def fingerprint(self) -> FileFingerprint | None:
        """Fingerprint of the last output."""
        return None if self.size is None or self.mtime_ns is None else FileFingerprint(self.size, self.mtime_ns)


class Status:
    """The status file; several processes may read and add to it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path, Record, hint="Choose another file with --status.")
        self._records: dict[str, Record] = {}

    @property
    def folder(self) -> Path:
        """Folder of the locks."""
        return self.path.parent / FOLDER

    def identity(self, output: Path) -> str:
        """Return the name of an output in the file: relative to the file's folder if it is inside, else its path."""
        real, folder = Path(os.path.realpath(output)), Path(os.path.realpath(self.path.parent))
        return real.relative_to(folder).as_posix() if real.is_relative_to(folder) else str(real)

    def of(self, output: Path) -> Record | None:
        """Return the last record of an output at the time of the last `refresh`."""
        return self._records.get(self.identity(output))

    def refresh(self) -> None:
        """Read the lines that were added. Raises OutputError if the file cannot be read."""
        added, replaced = self._journal.read_new()
        if replaced:
            self._records = {}
        for record in added:
            before = self._records.get(record.output)
            if record.state != "done" and before is not None:
                record = record.model_copy(update={"size": before.size, "mtime_ns": before.mtime_ns})
            self._records[record.output] = record

    def add(self, output: Path, state: State, *, key: str, parts: Mapping[str, str], attempt: int, **more: Any) -> None:
        """Add a line. Raises OutputError if it cannot be written."""
        record = Record(
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            output=self.identity(output),
            state=state,
            key=key,
            parts=dict(parts),
            attempt=attempt,
            **more,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "status.lock", patience=_PATIENCE_S) as alone:
                if not alone:
                    raise OutputError(f"{self.path} is locked by another process", "Choose another file with --status.")
                self._journal.append(record)
        except OSError as error:
            raise _not_usable(self.folder, error) from error


class OutputLocks:
    """Locks on the outputs that this process renders, so that concurrent batches do no job twice.

    The locks end with the process, however that ends; their files are kept.
    """

    def __init__(self, folder: Path) -> None:
        """Create the folder and its parents if missing. Raises OutputError if that fails."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_usable(folder, error) from error
        self._folder = folder
        self._held: dict[str, ExitStack] = {}

    def take(self, identity: str) -> bool:
        """Lock an output; return False if another process has it. Raises OutputError if locking fails."""
        held = ExitStack()
        try:
            if not held.enter_context(locked(self._folder / f"{text_sha256(identity)[:32]}.lock")):
                return False
        except OSError as error:
            raise _not_usable(self._folder, error) from error
        self._held[identity] = held
        return True

    def release(self, identity: str) -> None:
        """Release an output."""
        self._held.pop(identity).close()

    def release_all(self) -> None:
        """Release all outputs."""
        for identity in list(self._held):
            self.release(identity)


def output_fingerprint(output: Path) -> FileFingerprint | None:
    """Return the fingerprint of an output, or of all frames of a pattern; None if it does not exist."""
    try:
        files = [path for _, path in matching(output)] if is_pattern(output) else [output]
        return FileFingerprint.of(*files).content if files else None
    except OSError:
        return None


def _not_usable(folder: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"cannot use the folder {folder}: {reason}", "Choose another place with --status.")
