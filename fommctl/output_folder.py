"""The folder that a command fills over several runs: one run at a time, and files in it are whole or as before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fommctl.errors import OutputError, UsageError
from fommctl.models.home import replacing
from fommctl.models.locks import FileLock

_ELSEWHERE = "Choose another one with -o."


@contextmanager
def sole_run(folder: Path, lock: str, *, files: Sequence[str]) -> Iterator[None]:
    """Make the folder where it is missing and keep other runs out of it; the lock ends with the process.

    lock: name of the lock file, which is gone at the end.  files: names of those that `replace_text` writes here, of
    which a killed run may have left unfinished ones. Raises OutputError where the folder cannot be written to,
    UsageError where another run is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot make the folder {folder}: {reason}", _ELSEWHERE) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the output folder is not writable: {folder}", _ELSEWHERE)
    held = FileLock(folder / lock)
    try:
        alone = held.acquire()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write to {folder}: {reason}", _ELSEWHERE) from error
    if not alone:
        raise UsageError(f"another run is writing to {folder}", "Wait for its end, or choose another folder.")
    try:
        for name in files:
            for leftover in folder.glob(f".{name}.*.tmp"):
                leftover.unlink(missing_ok=True)
        yield
    finally:
        held.release()


def replace_text(target: Path, text: str) -> None:
    """Write a text file (UTF-8; names of files that are not stay as they are), all or nothing. Raises OutputError."""
    with replacing(target, hint="Free some space, or write elsewhere with -o.") as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
