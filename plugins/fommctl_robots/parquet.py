"""Reads Parquet files of LeRobot data sets in batches of rows; needs the package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import InputError, MissingError
from fommctl.api.readers import decode_picture

_AGAIN = "Download it again."


def rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as {column: value}.

    Raises InputError if the file is missing, damaged or lacks a column, MissingError if pyarrow is not installed.
    """
    with _opened(path, columns) as table:
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            yield from batch.to_pylist()


@dataclass(frozen=True)
class EpisodePictures:
    """Reads the frames of one episode and camera, which are encoded pictures in a column; can be pickled."""

    path: Path
    camera: str
    episode: int

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield frames (H, W, 3) uint8, one at a time.

        Raises the errors of `rows`, and InputError for a damaged picture or if the episode is not in the file.
        """
        found = False
        with _opened(self.path, ["episode_index", self.camera]) as table:
            for group in range(table.num_row_groups):
                # Indices first: they are small, and the pictures of other episodes then need not be read.
                episodes = table.read_row_group(group, columns=["episode_index"])["episode_index"].to_pylist()
                if self.episode not in episodes:
                    continue
                wanted = table.iter_batches(batch_size=16, row_groups=[group], columns=["episode_index", self.camera])
                for row in (row for batch in wanted for row in batch.to_pylist()):
                    if row["episode_index"] == self.episode:
                        found = True
                        yield self._decoded(row[self.camera])
        if not found:
            raise InputError(f"{self.path.name} has no frames of episode {self.episode}", _AGAIN)

    def _decoded(self, cell: object) -> NDArray[np.uint8]:
        data = cell.get("bytes") if isinstance(cell, dict) else None
        name = f"{self.path.name}, episode {self.episode}, {self.camera}"
        if not isinstance(data, bytes):
            raise InputError(f"{name}: a frame is not stored as a picture", "Is this a LeRobot data set as published?")
        return decode_picture(data, name)


@contextmanager
def _opened(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingError(
            "Parquet files of LeRobot data sets need the package pyarrow", "pip install 'fommctl[robots]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path} is missing", _AGAIN)
    try:
        with parquet.ParquetFile(path) as table:
            absent = [column for column in columns if column not in table.schema_arrow.names]
            if absent:
                raise InputError(f"{path} has no column {absent[0]}", "Is this a LeRobot data set as published?")
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}", _AGAIN) from error
