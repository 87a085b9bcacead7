"""What detectors and embedders found in pictures, kept by the content of these: nothing is looked for twice.

On disk it is one SQLite file, which several processes may use at once; one that is broken is thrown away. Losing it
costs time only, and nothing that goes wrong with it stops an evaluation.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Result = NDArray[np.float32] | None
"""What was found in a picture, of any shape; None where nothing was."""

Key = tuple[str, bytes]
"""Who found it, in which picture."""

log = logging.getLogger(__name__)
FILE = "detections-1.sqlite"
"""The number goes up when the table changes."""
REMEMBERED = 4096
"""Results that are also kept in memory: metrics of one evaluation ask for the same chunk one after the other."""
MOST_BYTES = 512 * 2**20
"""Of the file; beyond, the older half of the results goes. A result of 68 landmarks takes about 700 bytes."""
_BATCH = 16
"""Pictures handed to a detector at a time."""
_PATIENCE = 30
"""Seconds to wait while other processes write."""
_TABLE = """
create table if not exists results (
    source text not null, picture blob not null, found integer not null, shape text, data blob,
    primary key (source, picture)
) without rowid
"""
_QUESTIONS = 500
"""Pictures asked for in one query."""


class DetectionCache:
    """Results by who found them and by picture: in memory, and where a folder is given also on disk.

    May be handed to other processes, and used by several threads, one of which computes at a time.
    """

    def __init__(self, folder: Path | None, *, remembered: int = REMEMBERED, most_bytes: int = MOST_BYTES) -> None:
        """folder: made where it is missing; None for memory alone.  remembered: results in memory.
        most_bytes: on disk."""
        self.folder = folder
        self._remembered = remembered
        self._most_bytes = most_bytes
        self._memory: OrderedDict[Key, Result] = OrderedDict()
        self._lock = threading.RLock()
        self._file = None if folder is None else _File(folder, most_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.folder, self._remembered, self._most_bytes)

    def results(
        self, source: str, pictures: Sequence[Pixels], compute: Callable[[list[Pixels]], Sequence[Result]]
    ) -> list[Result]:
        """What `source` found in each picture (H, W, 3), computed in batches where it is not known.

        source: the name of the detector and its version: whatever changes what it finds has to change this.
        compute: gives as many results as it is given pictures.
        """
        keys = [(source, picture_key(picture)) for picture in pictures]
        by_key = dict(zip(keys, pictures, strict=True))
        with self._lock:
            known = {key: self._memory[key] for key in by_key if key in self._memory}
            if self._file is not None:
                known |= self._file.read([key for key in by_key if key not in known])
            missing = [key for key in by_key if key not in known]
            for first in range(0, len(missing), _BATCH):
                batch = missing[first : first + _BATCH]
                computed = compute([by_key[key] for key in batch])
                new = {key: _plain(result) for key, result in zip(batch, computed, strict=True)}
                known |= new
                if self._file is not None:
                    self._file.write(new)
            self._remember(known)
        return [known[key] for key in keys]

    def _remember(self, results: Mapping[Key, Result]) -> None:
        for key, result in results.items():
            self._memory[key] = result
            self._memory.move_to_end(key)
        while len(self._memory) > self._remembered:
            self._memory.popitem(last=False)


def _again(folder: Path | None, remembered: int, most_bytes: int) -> DetectionCache:
    return DetectionCache(folder, remembered=remembered, most_bytes=most_bytes)


def picture_key(picture: Pixels) -> bytes:
    """SHA-256 of a picture's shape and pixels, however they lie in memory."""
    digest = sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def _plain(result: Result) -> Result:
    return None if result is None else np.ascontiguousarray(result, np.float32)


class _File:
    """The results on disk. What goes wrong is told once; what does not work is not tried again."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._path = folder / FILE
        self._most_bytes = most_bytes
        self._readable = self._writable = True
        self._told = False

    def read(self, keys: Sequence[Key]) -> dict[Key, Result]:
        """Those of these results that are there."""
        found: dict[Key, Result] = {}

        def ask(connection: sqlite3.Connection) -> None:
            for first in range(0, len(keys), _QUESTIONS):
                part = keys[first : first + _QUESTIONS]
                for source in {source for source, _ in part}:
                    pictures = [picture for one, picture in part if one == source]
                    marks = ",".join("?" * len(pictures))
                    query = f"select picture, shape, data from results where source = ? and picture in ({marks})"
                    for picture, shape, data in connection.execute(query, (source, *pictures)):
                        if (read := _decoded(shape, data)) is not None:
                            found[source, picture] = read[0]

        if keys and self._readable:
            self._readable = self._attempt(ask)
            self._writable &= self._readable
        return found

    def write(self, results: Mapping[Key, Result]) -> None:
        """Add these."""
        now = int(time.time())
        rows = [(source, picture, now, *_encoded(result)) for (source, picture), result in results.items()]

        def add(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("insert or replace into results values (?, ?, ?, ?, ?)", rows)
            if self._path.stat().st_size > self._most_bytes:
                _halve(connection)

        if self._writable:
            self._writable = self._attempt(add)

    def _attempt(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Whether the work was done, if need be on a new file."""
        for first in (True, False):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # A connection of its own for each work: they survive no fork, and opening one takes no time.
                with closing(sqlite3.connect(self._path, timeout=_PATIENCE)) as connection:
                    # What a power cut may cost is a cache.
                    connection.execute("pragma synchronous = off")
                    connection.execute(_TABLE)
                    work(connection)
                return True
            except (sqlite3.Error, OSError) as error:
                if not (first and _is_broken(error) and self._thrown_away()):
                    self._tell(error)
                    return False
        return False

    def _thrown_away(self) -> bool:
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _tell(self, error: Exception) -> None:
        if not self._told:
            log.warning("what detectors find is not kept in %s: %s", self._path.parent, _reason(error))
        self._told = True


def _is_broken(error: Exception) -> bool:
    """Whether the file itself is at fault; operational errors are those of locks, permissions and space."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _encoded(result: Result) -> tuple[str | None, bytes | None]:
    return (None, None) if result is None else (",".join(map(str, result.shape)), result.tobytes())


def _decoded(shape: Any, data: Any) -> tuple[Result] | None:
    """The result of a row; None for a damaged one."""
    if shape is None and data is None:
        return (None,)
    try:
        sides = [int(side) for side in shape.split(",")]
        return (np.frombuffer(data, np.float32).reshape(sides),)
    except (AttributeError, TypeError, ValueError):
        return None


def _halve(connection: sqlite3.Connection) -> None:
    """Forget the older half of the results, and give the room back."""
    (middle,) = connection.execute(
        "select found from results order by found limit 1 offset (select count(*) / 2 from results)"
    ).fetchone()
    with connection:
        connection.execute("delete from results where found <= ?", (middle,))
    connection.execute("vacuum")
