"""Training pairs and their batches. What a pair is made of follows from the seed and its number alone.

So a run goes on where it stopped, and neither the number of workers nor that of processes changes what is trained on.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fommctl.errors import InputError, UsageError
from fommctl.sections import DatasetParams
from fommctl.stages.augmentation import augment, moved, warped
from fommctl.stages.training_cache import FrameCache
from fommctl.stages.training_clips import Clip

_log = logging.getLogger("fommctl.training")

Pixels = NDArray[np.uint8]
Landmarks = Callable[[list[Pixels]], list[NDArray[np.float32] | None]]
"""Landmarks (N, 2) in pixels, x before y, of each picture (H, W, 3); None where there is no subject."""

_REDUCED = 32
"""Side, in pixels, of the pictures by whose difference pairs are chosen."""
_GRACE = 20
"""Seconds that workers go on after SIGTERM, so that the run, which got it too, can save and end them itself."""


class TrainingPairs(Dataset[dict[str, Any]]):
    """Pairs of frames by their number, without an end: epoch after epoch, each in an order of its own.

    `pairs[draw]` holds `source` and `driving`, (3, H, W) float32 in [0, 1], `draw`, and, where `landmarks` is given,
    `source_landmarks` and `driving_landmarks`, (N, 2) float32 in [-1, 1], NaN where there is no subject.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        params: DatasetParams,
        *,
        repeats: int = 1,
        seed: int = 0,
        landmarks: Landmarks | None = None,
        landmark_count: int = 68,
        cache_bytes: int = 2 * 1024**3,
    ) -> None:
        """repeats: passes over the clips in an epoch.  landmarks: runs in the workers.
        landmark_count: N where there is no subject.  cache_bytes: memory for decoded frames, shared by forked workers.

        Raises InputError where there is nothing to make pairs of.
        """
        self.params = params
        self.seed = seed
        self._landmarks = landmarks
        self._landmark_count = landmark_count
        self._clips = [clip for clip in clips if not clip.still]
        self._stills = [clip for clip in clips if clip.still] if params.stills else []
        ignored = len(clips) - len(self._clips) - len(self._stills)
        if ignored:
            _log.warning("%d still pictures are not used: the preset has no dataset_params.stills", ignored)
        if not self._clips and not self._stills:
            raise InputError(
                "there is no clip of more than one frame to train on",
                "Add videos, or --set dataset_params.stills.fraction=1 to train on stills alone.",
            )
        self._units = self._drawn_from()
        self.pairs_per_epoch = len(self._units) * repeats
        self._frames = FrameCache([*self._clips, *self._stills], params.frame_shape, cache_bytes)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._failed: set[Path] = set()

    def _drawn_from(self) -> list[list[Clip]]:
        """What an epoch goes through: clips, or the clips of each identity."""
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
        for message in unreadable:
            _log.warning("%s", message)
        return item

    def draw(self, draw: int) -> tuple[dict[str, Any], list[str]]:
        """The pair, and a message for each clip that was found unreadable for the first time."""
        random = np.random.default_rng([self.seed, draw])
        unreadable: list[str] = []
        stills = self.params.stills
        still = bool(self._stills) and stills is not None and (random.random() < stills.fraction or not self._clips)
        frames = self._still(random, unreadable) if still else None
        if frames is None and self._clips:
            still = False
            frames = self._pair(draw, random, unreadable)
        if frames is None:
            raise InputError(
                f"none of the {len(self._clips) + len(self._stills)} clips can be read any more",
                unreadable[-1] if unreadable else "Check that the data is still there.",
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

    def _pair(self, draw: int, random: np.random.Generator, unreadable: list[str]) -> list[Pixels] | None:
        unit = self._unit(draw)
        first = unit[random.integers(len(unit))] if len(unit) > 1 else unit[0]
        for clip in self._from(first, self._clips, random):
            indices = np.sort(random.integers(clip.frames, size=self.params.pair_candidates))
            frames = self._read(clip, indices.tolist(), unreadable)
            if frames is not None:
                return most_different(frames)
        return None

    def _still(self, random: np.random.Generator, unreadable: list[str]) -> list[Pixels] | None:
        first = self._stills[random.integers(len(self._stills))]
        for clip in self._from(first, self._stills, random):
            frames = self._read(clip, [0], unreadable)
            if frames is not None:
                return [frames[0], frames[0]]
        return None

    def _from(self, first: Clip, others: list[Clip], random: np.random.Generator) -> Iterator[Clip]:
        """The clip, and after it all others in random order, in case it cannot be read."""
        yield first
        for index in random.permutation(len(others)):
            yield others[index]

    def _read(self, clip: Clip, indices: list[int], unreadable: list[str]) -> list[Pixels] | None:
        if clip.path in self._failed:
            return None
        try:
            return self._frames.read(clip, indices)
        except InputError as error:
            self._failed.add(clip.path)
            unreadable.append(f"{clip.name} cannot be read any more and is left out: {error.message}")
            return None

    def _tensors(self, frames: list[NDArray[np.float32]]) -> Tensor:
        """(2, 3, H, W); augmentations may have changed the size."""
        pair = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        size = self.params.frame_shape[:2]
        if pair.shape[2:] != size:
            pair = F.interpolate(pair, size, mode="bilinear", antialias=True)
        return pair.contiguous()

    def _found(self, pair: Tensor, landmarks: Landmarks) -> list[Tensor]:
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
    """Of frames in the order of time, the two whose reduced pictures differ most, by mean absolute difference."""
    if len(frames) == 2:
        return list(frames)
    stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
    reduced = F.adaptive_avg_pool2d(stack, _REDUCED).flatten(1)
    distance = torch.cdist(reduced, reduced, p=1)
    first, second = divmod(int(distance.argmax()), len(frames))
    return [frames[min(first, second)], frames[max(first, second)]]


def steps_per_epoch(pairs: TrainingPairs, batch_size: int) -> int:
    """Whole batches in an epoch. Raises UsageError where there is none."""
    steps = pairs.pairs_per_epoch // batch_size
    if steps == 0:
        raise UsageError(
            f"a batch of {batch_size} is larger than an epoch of {pairs.pairs_per_epoch} pairs",
            "Lower train_params.batch_size, or raise train_params.num_repeats.",
        )
    return steps


class _Reported(Dataset[tuple[dict[str, Any], list[str]]]):
    """Pairs with what went wrong, which the parent logs: workers write nowhere."""

    def __init__(self, pairs: TrainingPairs) -> None:
        self.pairs = pairs

    def __getitem__(self, draw: int) -> tuple[dict[str, Any], list[str]]:
        return self.pairs.draw(draw)


def batches(
    pairs: TrainingPairs,
    *,
    batch_size: int,
    first_step: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    steps: int | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Stacked pairs, step after step.

    batch_size: over all processes; this one, number `rank` of `world`, gets its contiguous part. Step s holds the
    same pairs whatever `first_step` and the numbers of workers and processes; the rest of an epoch that fills no
    batch is left out, as published. steps: how many to give; None for no end.
    Close the iterator (or let it run out) to end the workers.
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

    loader: Any = DataLoader(
        _Reported(pairs),
        batch_sampler=numbers(),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        # Forked workers need no pickled detectors; elsewhere than on Linux forking is not safe.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # Its own generator: the loader must not draw from that of the run.
        generator=torch.Generator(),
    )
    return _logged(iter(loader))


def _logged(iterator: Any) -> Iterator[dict[str, Tensor]]:
    told: set[str] = set()
    try:
        for batch, unreadable in iterator:
            for message in unreadable:
                if message not in told:
                    told.add(message)
                    _log.warning("%s", message)
            yield batch
    finally:
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _collate(drawn: list[tuple[dict[str, Any], list[str]]]) -> tuple[dict[str, Tensor], list[str]]:
    return default_collate([item for item, _ in drawn]), [message for _, messages in drawn for message in messages]


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # The run decides when to end: Ctrl-C and SIGTERM reach the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
