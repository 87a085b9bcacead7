"""Contents of the inputs of a batch: each file is read once, and not again as long as nobody has written to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from fommctl.errors import InterruptedRunError
from fommctl.provenance.hashing import media_hash

FILE = "hashes.json"
THREADS = 4
"""Files that are read at once: enough for a network, not too many for a disk with a head."""
SETTLED_NS = 2_000_000_000
"""A file that was written to so shortly before may be written to again without its times telling."""
_BLOCK = 1 << 20
_State = tuple[int, int, int, int]
"""Bytes, time of writing, time of any change (which no program can set) and number of a file."""


class Hashes:
    """SHA-256 of inputs, by path."""

    def __init__(self, memory: Path | None = None) -> None:
        """memory: where `remember` writes, and what it wrote is taken from; what is no such file is left out."""
        self._memory = memory
        self._before = {} if memory is None else _recalled(memory)
        self._files: dict[str, tuple[_State, str]] = {}
        self._known: dict[Path, str] = {}
        self._ahead: dict[Path, Future[str]] = {}
        self._stopped = threading.Event()

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file, a folder or a pattern of frames. Raises InputError."""
        if path not in self._known:
            waiting = self._ahead.get(path)
            self._known[path] = media_hash(path, self._of_file) if waiting is None else waiting.result()
        return self._known[path]

    @contextlib.contextmanager
    def ahead(self, paths: Iterable[Path]) -> Iterator[None]:
        """Meanwhile several threads read these, in their order."""
        with ThreadPoolExecutor(THREADS, "hashes") as pool:
            distinct = [path for path in dict.fromkeys(paths) if path not in self._known]
            self._ahead = {path: pool.submit(media_hash, path, self._of_file) for path in distinct}
            try:
                yield
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                self._ahead = {}
                self._stopped.clear()

    def remember(self) -> None:
        """Write down what was found, for the next time; where that cannot be, everything is read again then."""
        # Those of other jobs in this folder stay, as long as their files are there.
        others = {path: entry for path, entry in self._before.items() if path in self._files or os.path.exists(path)}
        kept = {**others, **self._files}
        if self._memory is None or kept == self._before:
            return
        temporary = self._memory.with_name(f"{self._memory.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        found = {path: [*state, value] for path, (state, value) in kept.items()}
        with contextlib.suppress(OSError):
            try:
                temporary.write_text(json.dumps(found))
                os.replace(temporary, self._memory)
            finally:
                temporary.unlink(missing_ok=True)

    def _of_file(self, path: Path) -> str:
        name, state = str(path), _state(path)
        before = self._before.get(name)
        if before is not None and before[0] == state:
            self._files[name] = before
            return before[1]
        began, digest = time.time_ns(), sha256()
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                if self._stopped.is_set():
                    raise InterruptedRunError("interrupted", None)
                digest.update(block)
        if _state(path) == state and began - max(state[1:3]) > SETTLED_NS:
            self._files[name] = state, digest.hexdigest()
        return digest.hexdigest()


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _recalled(memory: Path) -> dict[str, tuple[_State, str]]:
    try:
        found = json.loads(memory.read_bytes())
        return {path: ((int(a), int(b), int(c), int(d)), str(value)) for path, (a, b, c, d, value) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
