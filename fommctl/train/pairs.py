"""Training data: frames, landmarks, pairs, and batches of pairs, made by worker processes.

A pair depends only on the seed and its number, and step s has the same pairs whatever the number of workers and
processes, and wherever a run is resumed.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fommctl import signals
from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec
from fommctl.datasets.clips import Clip
from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.files import atomic_write
from fommctl.home import home
from fommctl.presets.sections import DatasetParams, ExpressionParams
from fommctl.train.augmentation import augment, moved, warped

Pixels = NDArray[np.uint8]
Find = Callable[[list[Pixels]], list[NDArray[np.float32] | None]]
"""Landmarks (N, 2) in pixels, x before y, of each picture (H, W, 3); None where there is no subject."""
Drawn = tuple[dict[str, Any], dict[str, str]]
"""A pair, and errors of clips that could not be read for it, by name."""
log = logging.getLogger(__name__)

_REDUCED = 32
"""Side, in pixels, of the reduced pictures whose differences choose pairs."""
_GRACE = 60
"""Seconds that workers continue after SIGTERM, so that the run, which also got it, can save and end them itself."""
_EMPTY, _SEEN, _TAKEN, _READY = range(4)
_MOST = 2 * 1024**3
_SMALLEST = 4
"""Least part of the data that has to fit to be worth the memory."""
_LARGEST = 8
"""No clip takes more than this part of the memory: filling it would hold up a worker for long."""


def spare_memory() -> int:
    """Return the bytes for frames in this process: a quarter of the machine's memory, at most 2 GiB, shared with the
    other processes of the run on this machine (`LOCAL_WORLD_SIZE`, which torch's launcher sets)."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        installed = 4 * _MOST
    return min(_MOST, installed // 4) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class FrameCache:
    """Reads frames of one size, and caches all frames of as many clips as fit, from their second use on.

    At its first use, only the requested frames of a clip are decoded, so that short runs do not wait for whole clips.
    The memory is shared with processes that are forked later; processes started otherwise cache nothing. Clips that do
    not fit are decoded each time.
    """

    def __init__(self, clips: Sequence[Clip], shape: tuple[int, int, int], limit: int) -> None:
        """shape: (H, W, C) of all frames.  limit: bytes."""
        self._shape = shape
        self._places: dict[Path, int] = {}
        """Offsets of the clips' frames in the memory; the byte before them is the clip's state."""
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
        """Return the frames (H, W, 3) uint8 with these numbers, read-only. Raises InputError."""
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
                # Single frames of a damaged clip may still be readable.
                return None
            with self._lock:
                self._memory[place] = _READY
        return frames

    def _decoded(self, clip: Clip, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        from fommctl.media.random_access import read_frames

        return read_frames(clip.path, indices, size=(self._shape[1], self._shape[0]))


class Landmarks:
    """Landmarks of the most confident subject of each frame; called in the data loader's workers.

    The detector is built at the first call, because few detectors can be copied to another process.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        self._spec = spec
        self._detector: Detector | None = None

    def __call__(self, frames: Sequence[Pixels]) -> list[NDArray[np.float32] | None]:
        """Find the landmarks of each frame.

        frames: (H, W, 3). Returns (N, 2) in pixels for each, None where no subject was found.
        """
        if self._detector is None:
            self._detector = self._spec.build()
        return [found[0].landmarks if found else None for found in self._detector.detect(frames)]


class KeptLandmarks:
    """Landmarks of clips, detected at the first use of each frame and cached in a folder.

    Runs and workers share the files; concurrent writers of a frame write the same values.
    """

    def __init__(self, find: Find, count: int, detector: str, folder: Path | None = None) -> None:
        """count: number N of landmarks.  detector: its name, part of the files' keys.  folder: None: in
        FOMMCTL_HOME."""
        self._find = find
        self._count = count
        self._detector = detector
        self._folder = home() / "landmarks" if folder is None else folder

    def read(self, clip: Clip, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return landmarks (len(indices), N, 2) of these frames, relative to width and height, NaN without a subject.

        Raises InputError if the clip cannot be read, OutputError if the folder is not writable.
        """
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
        """Return the memory-mapped landmarks of all frames (F, N, 2); infinite where not detected yet."""
        status = clip.path.stat()
        known = f"{self._detector}:{clip.path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{clip.frames}"
        path = self._folder / f"{sha256(known.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.npy"
        if not path.exists():
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.full((clip.frames, self._count, 2), np.inf, np.float16))
        return np.lib.format.open_memmap(path, mode="r+")


class TrainingPairs(Dataset[dict[str, Any]]):
    """An endless sequence of pairs of frames, by number: epoch after epoch, each in a random order.

    `pairs[draw]` has `source` and `driving`, (3, H, W) float32 in [0, 1], `draw`, and, with `landmarks`,
    `source_landmarks` and `driving_landmarks`, (N, 2) float32 in [-1, 1], NaN without a subject.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        params: DatasetParams,
        *,
        repeats: int = 1,
        seed: int = 0,
        landmarks: Find | None = None,
        landmark_count: int = 68,
        kept: KeptLandmarks | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """repeats: passes over the clips per epoch.  landmarks: finds landmarks, in the workers.
        landmark_count: number N of landmarks, for frames without a subject.
        kept: landmarks for choosing pairs if the preset has `expressions`; None: do not choose by them.
        cache_bytes: memory for decoded frames, shared by forked workers; None: `spare_memory`.

        Raises InputError if no pairs can be made.
        """
        self.params = params
        self.seed = seed
        self._landmarks = landmarks
        self._landmark_count = landmark_count
        self._kept = kept
        self._clips = [clip for clip in clips if not clip.still]
        self._stills = [clip for clip in clips if clip.still] if params.stills else []
        ignored = len(clips) - len(self._clips) - len(self._stills)
        if ignored:
            log.warning("%d still pictures are not used: the preset has no dataset_params.stills", ignored)
        if not self._clips and not self._stills:
            raise InputError(
                "there is no clip of more than one frame to train on",
                "Add videos, or --set dataset_params.stills.fraction=1 to train on stills alone.",
            )
        self._units = self._drawn_from()
        self.pairs_per_epoch = len(self._units) * repeats
        limit = spare_memory() if cache_bytes is None else cache_bytes
        self._frames = FrameCache([*self._clips, *self._stills], params.frame_shape, limit)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._told: set[str] = set()

    def _drawn_from(self) -> list[list[Clip]]:
        """Return the units of an epoch: single clips, or all clips of each identity."""
        if not self._clips:
            return [[still] for still in self._stills]
        if not self.params.id_sampling:
            return [[clip] for clip in self._clips]
        by_identity: dict[str, list[Clip]] = {}
        for clip in self._clips:
            by_identity.setdefault(clip.identity, []).append(clip)
        return [by_identity[identity] for identity in sorted(by_identity)]

    def __getitem__(self, draw: int) -> dict[str, Any]:
        item, unreadable = self.draw(draw)
        self.tell(unreadable)
        return item

    def tell(self, unreadable: Mapping[str, str]) -> None:
        """Log what is wrong with each clip, once."""
        for name, problem in unreadable.items():
            if name not in self._told:
                self._told.add(name)
                log.warning("%s cannot be read any more; others are used instead: %s", name, problem)

    def draw(self, draw: int) -> Drawn:
        """Return the pair with this number. No state is kept between calls, not even which clips have failed."""
        random = np.random.default_rng([self.seed, draw])
        unreadable: dict[str, str] = {}
        stills = self.params.stills
        still = bool(self._stills) and stills is not None and (random.random() < stills.fraction or not self._clips)
        frames = self._still(random, unreadable) if still else None
        if frames is None and self._clips:
            still = False
            frames = self._pair(draw, random, unreadable)
        if frames is None:
            raise InputError(
                f"none of the {len(self._clips) + len(self._stills)} clips can be read any longer",
                f"Check that the data is still there. {next(iter(unreadable.values()), '')}".strip(),
            )
        pair = self._tensors(augment(frames, self.params.augmentation_params, random))
        if still and stills is not None:
            pair = warped(pair, stills, random)
        elif self.params.rigid is not None and random.random() < self.params.rigid.fraction:
            pair = torch.cat((pair[:1], moved(pair[1:], self.params.rigid, random)))
        item: dict[str, Any] = {"source": pair[0], "driving": pair[1], "draw": draw}
        if self._landmarks is not None:
            item["source_landmarks"], item["driving_landmarks"] = self._found(pair, self._landmarks)
        return item, unreadable

    def _unit(self, draw: int) -> list[Clip]:
        epoch, position = divmod(draw, self.pairs_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.pairs_per_epoch)
        return self._units[self._order[1][position] % len(self._units)]

    def _pair(self, draw: int, random: np.random.Generator, unreadable: dict[str, str]) -> list[Pixels] | None:
        unit = self._unit(draw)
        first = unit[random.integers(len(unit))] if len(unit) > 1 else unit[0]
        expressions = self.params.expressions
        expressive = expressions is not None and self._kept is not None and random.random() < expressions.fraction
        for clip in self._from(first, self._clips, random):
            if expressive and expressions is not None:
                indices = self._expressive(clip, expressions, random, unreadable)
            else:
                indices = np.sort(random.integers(clip.frames, size=self.params.pair_candidates)).tolist()
            frames = indices and self._read(clip, indices, unreadable)
            if frames:
                return most_different(frames)
        return None

    def _expressive(
        self, clip: Clip, params: ExpressionParams, random: np.random.Generator, unreadable: dict[str, str]
    ) -> list[int]:
        """Return the two frames that differ most in a distance of landmarks; none if the clip cannot be read."""
        assert self._kept is not None
        count = min(params.candidates, clip.frames)
        candidates = np.sort(random.choice(clip.frames, count, replace=False))
        first, second = params.distances[random.integers(len(params.distances))]
        try:
            marks = self._kept.read(clip, [int(index) for index in candidates])
        except InputError as error:
            unreadable[clip.name] = error.message
            return []
        spread = np.linalg.norm(marks - marks.mean(1, keepdims=True), axis=2).mean(1)
        distances = np.linalg.norm(marks[:, first] - marks[:, second], axis=1) / spread
        if np.isfinite(distances).sum() < 2:
            return [int(index) for index in candidates[:2]]
        return sorted(int(candidates[place]) for place in (np.nanargmin(distances), np.nanargmax(distances)))

    def _still(self, random: np.random.Generator, unreadable: dict[str, str]) -> list[Pixels] | None:
        first = self._stills[random.integers(len(self._stills))]
        for clip in self._from(first, self._stills, random):
            frames = self._read(clip, [0], unreadable)
            if frames is not None:
                return [frames[0], frames[0]]
        return None

    def _from(self, first: Clip, others: list[Clip], random: np.random.Generator) -> Iterator[Clip]:
        """Yield the clip, then all others in random order, to be tried if it cannot be read."""
        yield first
        for index in random.permutation(len(others)):
            yield others[index]

    def _read(self, clip: Clip, indices: list[int], unreadable: dict[str, str]) -> list[Pixels] | None:
        try:
            return self._frames.read(clip, indices)
        except InputError as error:
            unreadable[clip.name] = error.message
            return None

    def _tensors(self, frames: list[NDArray[np.float32]]) -> Tensor:
        """Return (2, 3, H, W); augmentations may have changed the size."""
        pair = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        size = self.params.frame_shape[:2]
        if pair.shape[2:] != size:
            pair = F.interpolate(pair, size, mode="bilinear", antialias=True)
        return pair.contiguous()

    def _found(self, pair: Tensor, landmarks: Find) -> list[Tensor]:
        pixels = (pair * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        height, width = pixels.shape[1:3]
        last = np.array([width - 1, height - 1], np.float32)
        missing = np.full((self._landmark_count, 2), np.nan, np.float32)
        found = landmarks(list(pixels))
        return [
            torch.from_numpy(missing if one is None else np.float32(2) * one.astype(np.float32) / last - 1)
            for one in found
        ]


def most_different(frames: Sequence[Pixels]) -> list[Pixels]:
    """Choose the two frames whose reduced pictures differ most, by mean absolute difference, in the order of time."""
    if len(frames) == 2:
        return list(frames)
    stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
    reduced = F.adaptive_avg_pool2d(stack, _REDUCED).flatten(1)
    distance = torch.cdist(reduced, reduced, p=1)
    first, second = divmod(int(distance.argmax()), len(frames))
    return [frames[min(first, second)], frames[max(first, second)]]


def steps_per_epoch(pairs: TrainingPairs, batch_size: int) -> int:
    """Return the number of whole batches in an epoch. Raises UsageError if there is none."""
    steps = pairs.pairs_per_epoch // batch_size
    if steps == 0:
        raise UsageError(
            f"a batch of {batch_size} is larger than an epoch of {pairs.pairs_per_epoch} pairs",
            "Lower train_params.batch_size, or raise train_params.num_repeats.",
        )
    return steps


class _Reported(Dataset[Drawn | FommctlError]):
    """Pairs with errors as values, which the parent logs and raises: torch would turn them into a traceback's text."""

    def __init__(self, pairs: TrainingPairs) -> None:
        self.pairs = pairs

    def __getitem__(self, draw: int) -> Drawn | FommctlError:
        try:
            return self.pairs.draw(draw)
        except FommctlError as error:
            return error


def batches(
    pairs: TrainingPairs,
    *,
    batch_size: int,
    first_step: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    steps: int | None = None,
) -> Generator[dict[str, Tensor], None, None]:
    """Yield stacked pairs, step after step.

    batch_size: over all processes; this one, number `rank` of `world`, gets its contiguous part. Step s has the same
    pairs whatever `first_step` and the numbers of workers and processes; an incomplete last batch of an epoch is
    dropped, as published.  steps: number of steps; None: endless.
    Workers start with the first step; close or exhaust the generator to end them. Raises UsageError at once, and
    InputError at the first step for which no clip can be read.
    """
    if batch_size % world:
        raise UsageError(
            f"a batch of {batch_size} cannot be divided among {world} processes",
            f"Make train_params.batch_size a multiple of {world}.",
        )
    share = batch_size // world
    per_epoch = steps_per_epoch(pairs, batch_size)

    def numbers() -> Iterator[list[int]]:
        step = first_step
        while steps is None or step < first_step + steps:
            epoch, batch = divmod(step, per_epoch)
            start = epoch * pairs.pairs_per_epoch + batch * batch_size + rank * share
            yield list(range(start, start + share))
            step += 1

    loader: DataLoader[Any] = DataLoader(
        _Reported(pairs),
        batch_sampler=numbers(),
        num_workers=workers,
        collate_fn=_collated,
        worker_init_fn=_start_worker,
        # Forked workers need no pickled detectors and share the frames; elsewhere than on Linux forking is not safe.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # A generator of its own: the loader must not draw from the run's.
        generator=torch.Generator(),
    )
    return _run(loader, pairs)


def _run(loader: DataLoader[Any], pairs: TrainingPairs) -> Generator[dict[str, Tensor], None, None]:
    iterator: Any = iter(loader)
    try:
        for drawn in iterator:
            if isinstance(drawn, FommctlError):
                raise drawn
            batch, unreadable = drawn
            pairs.tell(unreadable)
            yield batch
    finally:
        # End the workers now, not at garbage collection; torch has no public name for it.
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


@contextmanager
def worker_crashes_as_errors(signalled: Callable[[], bool]) -> Iterator[None]:
    """Raise InputError for a worker that was killed, in place of torch's own error.

    signalled: whether the run has got a signal; then raise KeyboardInterrupt, because the workers have got it too.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        # A tensor that is fetched from the worker at that moment fails first.
        modules = [frame.f_globals.get("__name__") or "" for frame, _ in walk_tb(error.__traceback__)]
        fetching = any(module.startswith("multiprocessing.") for module in modules)
        if "DataLoader worker" not in str(error) and not fetching:
            raise
        if signalled():
            raise KeyboardInterrupt from error
        raise InputError(
            "the system killed a process that prepares training data",
            "It may have run out of memory: lower --workers, and resume with --resume auto.",
        ) from error


def _collated(drawn: list[Drawn | FommctlError]) -> tuple[dict[str, Tensor], dict[str, str]] | FommctlError:
    items: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for one in drawn:
        if isinstance(one, FommctlError):
            return one
        items.append(one[0])
        unreadable.update(one[1])
    return default_collate(items), unreadable


def _start_worker(_: int) -> None:
    # The run decides when to end its workers.
    signals.leave_to_parent(lambda *_: signal.alarm(_GRACE))
