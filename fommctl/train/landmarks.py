"""Landmarks of the frames of training pairs: found where the pairs are made, or once for each frame of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec
from fommctl.datasets.clips import Clip
from fommctl.files import atomic_write
from fommctl.models.home import home

Pixels = NDArray[np.uint8]
Find = Callable[[list[Pixels]], list[NDArray[np.float32] | None]]
"""Landmarks (N, 2) in pixels, x before y, of each picture (H, W, 3); None where there is no subject."""


class Landmarks:
    """Landmarks of the surest subject of each frame; called in the workers of the data loader.

    The detector is built at the first call: few of them survive being copied into another process.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        self._spec = spec
        self._detector: Detector | None = None

    def __call__(self, frames: Sequence[Pixels]) -> list[NDArray[np.float32] | None]:
        """frames: (H, W, 3). Returns (N, 2) in pixels for each, None where no subject was found."""
        if self._detector is None:
            self._detector = self._spec.build()
        return [found[0].landmarks if found else None for found in self._detector.detect(frames)]


class KeptLandmarks:
    """Landmarks of whole clips, each frame's found at its first use and kept in a folder.

    Runs and workers share the files. Who looks at a frame at the same time finds and writes the same.
    """

    def __init__(self, find: Find, count: int, detector: str, folder: Path | None = None) -> None:
        """count: N.  detector: its name, part of what a file is known by.  folder: None for one in FOMMCTL_HOME."""
        self._find = find
        self._count = count
        self._detector = detector
        self._folder = home() / "landmarks" if folder is None else folder

    def read(self, clip: Clip, indices: Sequence[int]) -> NDArray[np.float32]:
        """Landmarks (len(indices), N, 2) of these frames in shares of their width and height, NaN where there is no
        subject. Raises InputError where the clip cannot be read, OutputError where the folder cannot be written to."""
        kept = self._kept(clip)
        missing = sorted({index for index in indices if np.isinf(kept[index, 0, 0])})
        if missing:
            from fommctl.media.random_access import read_frames

            frames = read_frames(clip.path, missing)
            for index, frame, found in zip(missing, frames, self._find(frames), strict=True):
                size = np.array(frame.shape[1::-1], np.float32)
                kept[index] = np.nan if found is None else (found + np.float32(0.5)) / size
        return np.asarray(kept[list(indices)], np.float32)

    def _kept(self, clip: Clip) -> NDArray[np.float16]:
        """Of all frames (F, N, 2), in the file; infinite where nobody has looked yet."""
        status = clip.path.stat()
        known = f"{self._detector}:{clip.path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{clip.frames}"
        path = self._folder / f"{sha256(known.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.npy"
        if not path.exists():
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.full((clip.frames, self._count, 2), np.inf, np.float16))
        return np.lib.format.open_memmap(path, mode="r+")
