"""Locks between processes whose files are gone with them."""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
_PAUSE = 0.02
"""Seconds between two looks."""
_held: set[int] = set()
"""The open files of all locks of this process."""


class FileLock:
    """A lock that ends with its process, however that ends; `release` removes its file.

    Not filelock's: some of its versions remove the file themselves and some do not look whether the file that they
    have locked still has its name. With a file that comes and goes, two processes then hold "the" lock (measured with
    filelock 3.10 to 3.29).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, patience: float = 0.0) -> bool:
        """False where another process holds it for longer than `patience` seconds. Raises OSError where the file
        cannot be made or locked."""
        until = time.monotonic() + patience
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                # One that was removed after it had been opened guards nothing.
                if _locked(file) and _is_named(file, self.path):
                    _held.add(file)
                    self._file, file = file, -1
                    return True
            finally:
                if file >= 0:
                    os.close(file)
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Remove the file and let others take the lock; nothing where this process does not hold it."""
        file, self._file = self._file, None
        if file is None or file not in _held:
            return
        _held.discard(file)
        # While it is held: nobody else can have taken it in between. (Windows removes no file that is open.)
        with suppress(OSError):
            self.path.unlink()
        _unlocked(file)
        os.close(file)
        with suppress(OSError):
            if sys.platform == "win32":
                self.path.unlink()


def _leave_to_parent() -> None:
    """A forked child, which may live longer, does not hold what its parent has locked."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _is_named(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _locked(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def _unlocked(file: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def _unlocked(file: int) -> None:
        # Said, not left to `close`: a forked child shares the file, and would keep the lock.
        fcntl.flock(file, fcntl.LOCK_UN)
