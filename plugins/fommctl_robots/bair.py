"""BAIR robot pushing (Ebert et al. 2017, "Self-Supervised Visual Planning with Temporal Skip Connections").

Published layout: softmotion30_44k/{train,test}/*.tfrecords, one record per trajectory, with thirty raw pictures of
64x64 pixels in `N/image_aux1/encoded` and `N/image_main/encoded`. Layout of the frames that video-prediction
repositories extract from image_aux1: {train,test}/TRAJECTORIES/NUMBER/FRAME.png.
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
"""The camera used in publications."""
_PICTURES = (".png", ".jpg", ".jpeg")
_SPLITS: dict[str, Split] = {"train": "train", "test": "test", "val": "test"}
"""Splits by the name of the folder."""


@dataclass(frozen=True)
class Trajectory:
    """Reads the frames of one record of a TFRecord file; can be pickled."""

    path: Path
    start: int
    """Offset of the record in bytes."""
    camera: str = CAMERA

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield square frames (H, W, 3) uint8. Raises InputError if the record is damaged or has no pictures."""
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
            message = f"{self.path.name}: a picture of {len(raw)} bytes is not a raw square"
            raise InputError(message, "The published files store pictures as 64x64x3 bytes.")
        return np.frombuffer(raw, np.uint8).reshape(side, side, 3).copy()


class Bair:
    """Trajectories of a robot arm over a tray of objects; each is its own identity, since the objects differ.

    The split is that of the folder. TFRecords are used if there are any, else folders of frames.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the trajectories. A damaged file yields those before the damage, and one whose frames raise InputError.

        Raises InputError if there are none.
        """
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
                "Give the folder that contains train and test (published as softmotion30_44k).",
            )


def _files(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root):
        yield from (Path(folder, file) for file in files if file.endswith((".tfrecords", ".tfrecord")))


def _frame_folders(root: Path) -> Iterator[Path]:
    """Yield the folders below `root` that contain pictures, in numerical order."""
    for folder, inner, files in os.walk(root):
        inner.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        if Path(folder) != root and any(file.lower().endswith(_PICTURES) for file in files):
            yield Path(folder)


def _split(path: Path, root: Path) -> Split | None:
    named = [_SPLITS[part] for part in path.relative_to(root).parts if part in _SPLITS]
    return named[0] if named else _SPLITS.get(root.name)


def _identity(path: Path, *more: str) -> str:
    """Join the parts of a relative path to one name."""
    return file_name_part("-".join((*path.parts, *more)), identity=True)
