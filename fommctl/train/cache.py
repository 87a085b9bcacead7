"""Frames of training clips in memory, so that a small data set is decoded once and not at every pair."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.datasets.clips import Clip
from fommctl.errors import InputError

_EMPTY, _SEEN, _TAKEN, _READY = range(4)
_MOST = 2 * 1024**3
_SMALLEST = 4
"""Where less than this part of the data fits, it is not worth the memory."""
_LARGEST = 8
"""No clip takes more than this part of the memory: filling it would hold up a worker for long."""


def spare_memory() -> int:
    """Bytes for frames in this process: a quarter of the machine's memory and at most 2 GiB, shared with the other
    processes of the run on this machine (`LOCAL_WORLD_SIZE`, which torch's launcher sets)."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        installed = 4 * _MOST
    return min(_MOST, installed // 4) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class FrameCache:
    """Reads frames of one size, and keeps all frames of as many clips as fit, from their second use on.

    A clip's first use decodes what is asked for, so that short runs do not wait for whole clips. The memory is shared
    with processes that are forked later, whoever fills it; processes that are started otherwise keep nothing. Clips
    that do not fit are decoded anew each time.
    """

    def __init__(self, clips: Sequence[Clip], shape: tuple[int, int, int], limit: int) -> None:
        """shape: (H, W, C) of all frames.  limit: bytes."""
        self._shape = shape
        self._places: dict[Path, int] = {}
        """Where in the memory a clip's frames begin; a byte before them says what they are."""
        used = 0
        sizes = [1 + clip.frames * prod(shape) for clip in clips]
        for clip, size in zip(clips if limit * _SMALLEST > sum(sizes) else (), sizes, strict=False):
            if size <= limit // _LARGEST and used + size <= limit:
                self._places[clip.path] = used
                used += size
        self._memory = np.frombuffer(mmap.mmap(-1, used), np.uint8) if used else np.empty(0, np.uint8)
        self._lock = multiprocessing.get_context().Lock() if used else None

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, ((), self._shape, 0)

    def read(self, clip: Clip, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The frames (H, W, 3) uint8 with these numbers; not to be written to. Raises InputError."""
        kept = self._kept(clip)
        return self._decoded(clip, indices) if kept is None else [kept[index] for index in indices]

    def _kept(self, clip: Clip) -> NDArray[np.uint8] | None:
        place = self._places.get(clip.path)
        if place is None or self._lock is None:
            return None
        with self._lock:
            state = self._memory[place]
            if state in (_EMPTY, _SEEN):
                self._memory[place] = state + 1
        if state in (_EMPTY, _TAKEN):
            return None
        shape = (clip.frames, *self._shape)
        frames = self._memory[place + 1 : place + 1 + prod(shape)].reshape(shape)
        if state == _SEEN:
            try:
                np.stack(self._decoded(clip, range(clip.frames)), out=frames)
            except InputError:
                # What can be read of a damaged clip is still of use.
                return None
            with self._lock:
                self._memory[place] = _READY
        return frames

    def _decoded(self, clip: Clip, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        from fommctl.media.random_access import read_frames

        return read_frames(clip.path, indices, size=(self._shape[1], self._shape[0]))
