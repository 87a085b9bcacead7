"""Who renders what: a lock for each output, so that batches that run at once do no job twice."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from fommctl.errors import OutputError

FOLDER = ".fommctl-batch"


class Claims:
    """The locks that this process holds; they end with it, whatever ends it."""

    def __init__(self, folder: Path) -> None:
        """folder: made where it is missing, as are those above it. Raises OutputError where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot make {folder}: {reason}", "Choose another place with --status.") from error
        self.folder = folder
        self._held: dict[str, FileLock] = {}

    def take(self, identity: str) -> bool:
        """False where another process holds the claim. Raises OutputError where nothing can be locked."""
        lock = FileLock(self.folder / f"{sha256(identity.encode()).hexdigest()[:32]}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(
                f"cannot lock anything in {self.folder}: {reason}", "Choose another place with --status."
            ) from error
        self._held[identity] = lock
        return True

    def release(self, identity: str) -> None:
        """Give a claim back, and clean up after it."""
        self._held.pop(identity).release()

    def release_all(self) -> None:
        """At the end, however it came."""
        for identity in list(self._held):
            self.release(identity)
