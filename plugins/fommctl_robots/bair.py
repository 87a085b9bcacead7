"""BAIR robot pushing (Ebert et al. 2017, "Self-Supervised Visual Planning with Temporal Skip Connections").

As published: softmotion30_44k/{train,test}/*.tfrecords, a record a trajectory, with thirty pictures of 64x64 under
`N/image_aux1/encoded` and `N/image_main/encoded` as raw bytes. As the repositories on video prediction convert it:
{train,test}/TRAJECTORIES/NUMBER/FRAME.png, of image_aux1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api import ClipRecord, InputError
from fommctl.api.folders import file_name_part
from fommctl.api.protocols import Split
from fommctl_robots.tfrecord import byte_features, read_record, record_starts

CAMERA = "image_aux1"
"""The view that everybody trains and reports on."""
_PICTURES = (".png", ".jpg", ".jpeg")
_SPLITS: dict[str, Split] = {"train": "train", "test": "test", "val": "test"}
"""Names of folders."""


@dataclass(frozen=True)
class Trajectory:
    """The frames of one record of a TFRecord file; can be sent to another process."""

    path: Path
    start: int
    """Byte at which the record begins."""
    camera: str = CAMERA

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield squares (H, W, 3) uint8. Raises InputError where the record is damaged or has no pictures."""
        record = read_record(self.path, self.start)
        try:
            strings = byte_features(record)
        except ValueError as error:
            message = f"{self.path.name}: the record at byte {self.start} is not a tf.train.Example: {error}"
            raise InputError(message, "Is this the data set in its published form?") from error
        index = 0
        while (raw := strings.get(f"{index}/{self.camera}/encoded")) is not None:
            yield self._picture(raw)
            index += 1
        if index == 0:
            message = f"{self.path.name}: the record at byte {self.start} has no pictures {self.camera}"
            raise InputError(message, f"Expected features 0/{self.camera}/encoded, 1/{self.camera}/encoded and so on.")

    def _picture(self, raw: memoryview) -> NDArray[np.uint8]:
        side = math.isqrt(len(raw) // 3)
        if side == 0 or side * side * 3 != len(raw):
            message = f"{self.path.name}: a picture of {len(raw)} bytes is not square and raw"
            raise InputError(message, "Pictures are stored as 64x64x3 bytes in the published files.")
        return np.frombuffer(raw, np.uint8).reshape(side, side, 3).copy()


class Bair:
    """Trajectories of one arm over a tray of things; each is an identity of its own, for no two show the same things.

    The split is that of the folder, train or test. TFRecords are taken where there are any, else folders of frames.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield a trajectory at a time; of a damaged file those before the damage, and one whose frames raise
        InputError."""
        found = False
        for path in sorted(_files(root), key=lambda path: path.relative_to(root).parts):
            for number, start in enumerate(record_starts(path)):
                found = True
                identity = _identity(path.relative_to(root).with_suffix(""), f"{number:05d}")
                frames = Trajectory(path, start)
                yield ClipRecord(name=CAMERA, identity=identity, split=_split(path, root), frames=frames)
        if found:
            return
        for folder in _frame_folders(root):
            found = True
            identity = _identity(folder.relative_to(root))
            yield ClipRecord(name=CAMERA, identity=identity, split=_split(folder, root), path=folder)
        if not found:
            raise InputError(
                f"{root} contains neither .tfrecords files nor folders of frames",
                "Name the folder with train and test in it (softmotion30_44k, as published).",
            )


def _files(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root):
        yield from (Path(folder, file) for file in files if file.endswith((".tfrecords", ".tfrecord")))


def _frame_folders(root: Path) -> Iterator[Path]:
    """Yield folders below `root` that hold pictures, in order."""
    for folder, inner, files in os.walk(root):
        inner.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        if Path(folder) != root and any(file.lower().endswith(_PICTURES) for file in files):
            yield Path(folder)


def _split(path: Path, root: Path) -> Split | None:
    named = [_SPLITS[part] for part in path.relative_to(root).parts if part in _SPLITS]
    return named[0] if named else _SPLITS.get(root.name)


def _identity(path: Path, *more: str) -> str:
    """Return the path below the root as one name."""
    return file_name_part("-".join((*path.parts, *more)), identity=True)
