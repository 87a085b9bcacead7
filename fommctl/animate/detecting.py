"""Reading a driving video as the model sees it, and detecting its motion, for one or several faces."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from fommctl.animate.motion import DrivingFrame, DrivingFraming, Motion
from fommctl.api.protocols import DrivingMoment, DrivingRenderer, Renderer
from fommctl.detection.landmarks import LandmarkFinder
from fommctl.errors import MissingError
from fommctl.media.boxes import TurnedSquare
from fommctl.media.conversion import View
from fommctl.media.reader import Clip, Frame, Reader
from fommctl.media.resampling import Pixels, resize, upright
from fommctl.networks.grids import to_tensor
from fommctl.networks.motion import MotionParts
from fommctl.threads import ReadAhead, batches

log = logging.getLogger(__name__)
BATCH_ON_CPU = 4
BATCH_ON_GPU = 32
QUEUED_BATCHES = 3
TOO_LARGE = "Use --device cpu, or a smaller --size."
T = TypeVar("T")
M = TypeVar("M", bound=MotionParts)
Faces = tuple[DrivingFrame, ...]
"""One frame of the driving video, cut out for each face."""


def usual_batch_size(device: torch.device) -> int:
    """Return the default batch size for a device."""
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_ON_GPU


class Batched:
    """Processes rows batch by batch, halving the batches when the device runs out of memory."""

    def __init__(self, batch_size: int | None, device: torch.device, *, hint: str = TOO_LARGE) -> None:
        """hint: advice for the error raised when there is not enough memory for one row."""
        self.usual = batch_size or usual_batch_size(device)
        """The batch size that was asked for, or the device's default."""
        self.batch_size = self.usual
        """The batch size in effect, after any halving."""
        self.seconds = 0.0
        """Time spent in the model."""
        self.device = device
        self._hint = hint

    def in_batches(self, count: int, work: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """Call `work` on slices of `count` rows; yield each slice with its result. Raises MissingError if there is not
        enough memory for one row."""
        position = 0
        while position < count:
            part = slice(position, min(position + self.batch_size, count))
            began = time.perf_counter()
            try:
                done = work(part)
            except torch.OutOfMemoryError:
                self.batch_size = halved(part.stop - position, self.device, self._hint)
                continue
            self.seconds += time.perf_counter() - began
            yield part, done
            position = part.stop


def cut_out(
    reader: Reader, first: int | None, framings: Sequence[DrivingFraming], size: tuple[int, int]
) -> Iterator[Faces]:
    """Yield the frames of a driving video, cut out and resized for the model, for each of its faces.

    A clip of one shot with a fixed square is cropped while it is decoded. Otherwise whole frames are decoded, no larger
    than the smallest square needs.

    first: number of the first picture, where pictures are numbered.  framings: one per face.  size: (width, height) of
    the model's frames.
    """
    cuts = [_Cut(reader, framing, size) for framing in framings]
    framing = framings[0]
    for frames in reader.through([cut.view for cut in cuts]):
        frame = frames[0]
        if first is None:
            number = 1 + frame.index
        else:
            number = first + round((framing.start + frame.time) * framing.info.rate)
        yield tuple(
            DrivingFrame(number, frame.time, frame.duration, cut.framing.present(frame.time), cut(shown))
            for cut, shown in zip(cuts, frames, strict=True)
        )


class _Cut:
    """Cuts one face's square out of each frame."""

    def __init__(self, reader: Reader, framing: DrivingFraming, size: tuple[int, int]) -> None:
        self.framing, self._size = framing, size
        self._moving = bool(framing.shots) and framing.fixed_box is None
        box, decoded = (None, _decoded_size(framing, size)) if self._moving else (framing.fixed_box, size)
        self.view: View = reader.view(box, decoded)

    def __call__(self, frame: Frame) -> Pixels:
        if not self._moving:
            return frame.pixels
        framing, size = self.framing, self._size
        part = framing.shots[framing.number_at(frame.time)]
        scale = frame.pixels.shape[1] / framing.info.width, frame.pixels.shape[0] / framing.info.height
        if part.path is None:
            return resize(frame.pixels, size, part.box.scaled(*scale))
        at = part.path.at(float(frame.time))
        center = at.center[0] * scale[0], at.center[1] * scale[1]
        return upright(frame.pixels, TurnedSquare(center, at.side * scale[0], at.angle), size)


def _decoded_size(framing: DrivingFraming, size: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) for decoding whole frames, no larger than the smallest square needs."""
    smallest = min(shot.box.width if shot.path is None else shot.path.smallest for shot in framing.shots)
    scale = min(1.0, size[0] / smallest)
    return max(1, round(framing.info.width * scale)), max(1, round(framing.info.height * scale))


class MotionDetector(Batched):
    """Detects the motion of driving frames batch by batch."""

    def __init__(self, renderer: Renderer, batch_size: int | None, landmarks: LandmarkFinder | None = None) -> None:
        """landmarks: finds each frame's landmarks, for options of the model's family that need them."""
        super().__init__(batch_size, renderer.device)
        self._renderer = renderer
        self._landmarks = landmarks

    def __call__(self, frames: Sequence[DrivingFrame], *, keep_pixels: bool = False) -> Iterator[DrivingFrame]:
        """Yield the frames of a batch with their motion, on the model's device."""
        renderer = self._renderer

        def detected(part: slice) -> MotionParts:
            pixels = [frame.pixels for frame in frames[part] if frame.pixels is not None]
            shown = to_tensor(pixels, renderer.device)
            if isinstance(renderer, DrivingRenderer):
                moments = [DrivingMoment(frame.number, frame.time, frame.present) for frame in frames[part]]
                motion: MotionParts = renderer.detect_driving(shown, moments)
            else:
                motion = renderer.detect(shown)
            return with_landmarks(motion, self._landmarks, pixels)

        for part, motion in self.in_batches(len(frames), detected):
            for index, frame in enumerate(frames[part]):
                row = motion[index : index + 1]
                yield replace(frame, motion=row, pixels=frame.pixels if keep_pixels else None)


def with_landmarks(motion: M, landmarks: LandmarkFinder | None, pixels: Sequence[Pixels]) -> M:
    """Add to the motion of these pictures what their landmarks show; `landmarks` None leaves it as it is."""
    if landmarks is None:
        return motion
    device = next(part.device for part in motion.parts() if part is not None)
    return motion.with_landmarks(torch.from_numpy(landmarks(pixels)).to(device))


def halved(size: int, device: torch.device, hint: str) -> int:
    """Return half of a batch size that did not fit into memory. Raises MissingError if it was a single frame."""
    if size <= 1:
        raise MissingError(f"not enough memory on {device} for one frame", hint)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log.warning("out of memory: continuing with batches of %d", size // 2)
    return size // 2


class DrivingMotion:
    """The driving frames of one run with their motion, for each face: detected in the video, or taken from motion
    files."""

    def __init__(
        self,
        driving: Clip | Sequence[Motion],
        framings: Sequence[DrivingFraming],
        size: tuple[int, int],
        detectors: Sequence[MotionDetector],
        *,
        kind: type[MotionParts],
        beside: bool,
        at_once: bool,
        keep: bool,
    ) -> None:
        """Describe the run; nothing is read yet.

        framings, detectors: one per face.  size: (width, height) of the model's frames.  kind: type of the parts of
        motion files.  beside: keep the pixels, to show them beside the result.  at_once: whether each frame is used as
        soon as it is read.  keep: collect the frames in `frames`.
        """
        self.warnings: list[str] = []
        self.frames: list[list[DrivingFrame]] = [[] for _ in detectors]
        """All detected frames, one list per face; empty unless `keep` is set."""
        self._driving, self._kind = driving, kind
        self._framings, self._size = framings, size
        self._detectors = detectors
        self._beside, self._at_once, self._keep = beside, at_once, keep

    @contextmanager
    def detected(self) -> Iterator[list[Iterator[DrivingFrame]]]:
        """Yield one iterator per face over the frames with their motion, in order; read all of them in step."""
        if not isinstance(self._driving, Clip):
            yield [motion.frames(self._kind, self._detectors[0].device) for motion in self._driving]
            return
        if self._beside and not self._at_once:
            # Keeping the pictures of a long shot until its reference is known would fill the memory: read them again.
            with self._read() as read:
                motions = list(zip(*self._found(read, keep_pixels=False), strict=True))
            with self._read() as read:
                shown = (
                    tuple(replace(one, pixels=other.pixels) for one, other in zip(frames, pictures, strict=True))
                    for frames, pictures in zip(motions, (frames for batch in read for frames in batch), strict=False)
                )
                yield in_step(([frames] for frames in shown), len(self._detectors))
            return
        with self._read() as read:
            yield self._found(read, keep_pixels=self._beside)

    def _found(self, read: Iterable[list[Faces]], *, keep_pixels: bool) -> list[Iterator[DrivingFrame]]:
        def found() -> Iterator[list[Faces]]:
            for batch in read:
                faces = zip(*batch, strict=True)
                rows = [
                    list(detector(seen, keep_pixels=keep_pixels))
                    for detector, seen in zip(self._detectors, faces, strict=True)
                ]
                if self._keep:
                    for kept, row in zip(self.frames, rows, strict=True):
                        kept += [replace(frame, pixels=None) for frame in row]
                yield list(zip(*rows, strict=True))

        return in_step(found(), len(self._detectors))

    @contextmanager
    def _read(self) -> Iterator[ReadAhead[list[Faces]]]:
        assert isinstance(self._driving, Clip)
        reader = self._driving.reader()
        frames = cut_out(reader, self._driving.info.first_number, self._framings, self._size)
        try:
            with ReadAhead(batches(frames, self._detectors[0].batch_size), QUEUED_BATCHES) as read:
                yield read
        finally:
            reader.close()
            self.warnings += [warning for warning in reader.warnings if warning not in self.warnings]


def in_step(batches: Iterable[Sequence[tuple[T, ...]]], count: int) -> list[Iterator[T]]:
    """Return `count` iterators: over the first items of all tuples, over the second items, and so on."""
    source, waiting = iter(batches), [deque[T]() for _ in range(count)]

    def each(own: deque[T]) -> Iterator[T]:
        while True:
            while own:
                yield own.popleft()
            batch = next(source, None)
            if batch is None:
                return
            for items in batch:
                for queue, item in zip(waiting, items, strict=True):
                    queue.append(item)

    return [each(own) for own in waiting]
