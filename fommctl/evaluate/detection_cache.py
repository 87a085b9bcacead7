"""Caches results of detectors and embedders in an SQLite file, by the content of the picture.

Several processes may use the file at once. If the file cannot be used, results are cached in memory.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import first_line
from fommctl.media.resampling import Pixels

Result = NDArray[np.float32] | None
"""Result for one picture, of any shape; None if nothing was found."""
T = TypeVar("T")

log = logging.getLogger(__name__)
FILE = "detections-1.sqlite"
"""Name of the file; its number changes with the table's columns."""
MOST_BYTES = 512 * 2**20
"""Size of the file above which the older half of the results is deleted; 68 landmarks need about 700 bytes."""
_BATCH = 16
"""Pictures passed to a detector at a time."""
_TIMEOUT = 30
"""Seconds to wait while other processes write."""
_TABLE = """
create table if not exists results (
    source text not null, picture blob not null, found integer not null, shape text, data blob,
    primary key (source, picture)
) without rowid
"""


class DetectionCache:
    """A cache of results by source and picture; may be used only in the thread that created it."""

    def __init__(self, folder: Path | None) -> None:
        """folder: folder of the file, created if it is missing; None to cache in memory only."""
        self._path = None if folder is None else folder / FILE
        self._open: sqlite3.Connection | None = None

    def results(
        self, source: str, pictures: Sequence[Pixels], compute: Callable[[list[Pixels]], Sequence[Result]]
    ) -> list[Result]:
        """Return the result for each picture (H, W, 3), from the cache or computed in batches.

        source: name and version of the detector, which must differ if results may differ.  compute: returns one result
        per picture.
        """
        keys = [picture_key(picture) for picture in pictures]
        by_key = dict(zip(keys, pictures, strict=True))
        known = self._attempt(lambda database: _read(database, source, by_key))
        missing = [key for key in by_key if key not in known]
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            computed = compute([by_key[key] for key in batch])
            new = {
                key: None if result is None else np.ascontiguousarray(result, np.float32)
                for key, result in zip(batch, computed, strict=True)
            }
            known |= new
            self._attempt(lambda database, new=new: _write(database, source, new))  # type: ignore[misc]
        return [known[key] for key in keys]

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the file; after a failure, on a database in memory."""
        if self._path is not None:
            try:
                self._open = self._open or _connect(self._path)
                return work(self._open)
            except (sqlite3.Error, OSError, ValueError, TypeError, AttributeError) as error:
                log.warning("detections are not cached in %s: %s", self._path, first_line(error).lower())
                self._path = self._open = None
        if self._open is None:
            self._open = sqlite3.connect(":memory:")
            self._open.execute(_TABLE)
        return work(self._open)


def picture_key(picture: Pixels) -> bytes:
    """Return a hash of a picture's shape and pixels, independent of its memory layout."""
    digest = sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_TIMEOUT)
    # Faster, and only a power cut can damage the cache.
    database.execute("pragma synchronous = off")
    database.execute(_TABLE)
    if path.stat().st_size > MOST_BYTES:
        with database:
            database.execute(
                "delete from results where found <= "
                "(select found from results order by found limit 1 offset (select count(*) / 2 from results))"
            )
        database.execute("vacuum")
    return database


def _read(database: sqlite3.Connection, source: str, pictures: Iterable[bytes]) -> dict[bytes, Result]:
    """Return the stored results; None for a picture in which nothing was found."""
    query = "select shape, data from results where source = ? and picture = ?"
    found: dict[bytes, Result] = {}
    for picture in pictures:
        if row := database.execute(query, (source, picture)).fetchone():
            shape, data = row
            sides = None if shape is None else [int(side) for side in shape.split(",") if side]
            found[picture] = None if sides is None else np.frombuffer(data, np.float32).reshape(sides)
    return found


def _write(database: sqlite3.Connection, source: str, results: Mapping[bytes, Result]) -> None:
    now = int(time.time())
    with database:
        for picture, result in results.items():
            shape, data = (None, None) if result is None else (",".join(map(str, result.shape)), result.tobytes())
            database.execute(
                "insert or replace into results values (?, ?, ?, ?, ?)", (source, picture, now, shape, data)
            )
