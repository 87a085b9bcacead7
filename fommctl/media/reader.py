"""Frames of a video, an animation, a folder of frames or a single picture, one at a time, with their timestamps."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from fommctl.errors import InputError, UsageError
from fommctl.media import Deinterlace
from fommctl.media.boxes import Box
from fommctl.media.conversion import View
from fommctl.media.probe import OpenVideo, VideoInfo, probe, probe_open
from fommctl.media.read_options import PLAIN, ReadOptions
from fommctl.media.resampling import Pixels
from fommctl.media.sources import Pending, pending_frames


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a clip.

    pixels: (H, W, 3) uint8 RGB, bt709 or sRGB.  index: from 0 in the order of delivery.
    time: seconds since the first frame of the clip, or since `start`.  duration: seconds until the next frame, or until
    `end` if that is well before it.  content: if the aspect ratio differs from the first frame's, the box of this
    picture between black bars, in pixels; else None.
    """

    pixels: Pixels
    index: int
    time: Fraction
    duration: Fraction
    content: Box | None = None


class Reader:
    """Iterates over the frames of `path`; every iteration starts anew and keeps only a few frames in memory.

    Iterate in one thread at a time; `close` may be called from any thread and ends the iteration at the next frame.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction | None = None,
        start: Fraction | None = None,
        end: Fraction | None = None,
        box: Box | None = None,
        size: tuple[int, int] | None = None,
        max_rate: Fraction | None = None,
        deinterlace: Deinterlace = "auto",
        info: VideoInfo | None = None,
        opened: OpenVideo | None = None,
    ) -> None:
        """Probe the file; decoding begins with the iteration.

        fps: rate of folders and patterns of frames (25 by default).  start, end: seconds since the first frame; frames
        with start <= time < end are read.  box: part of the displayed picture, rounded to whole pixels; outside the
        picture its border is repeated.  size: (width, height) of the result.  max_rate: most frames per second.
        deinterlace: see `Deinterlace`.  info, opened: results of `probe` and `probe_open` with the same rate and
        deinterlacing, to avoid probing or opening the file again.
        Raises InputError, and UsageError for impossible rates, times and boxes.
        """
        for name, rate in (("frame rate", fps), ("highest frame rate", max_rate)):
            if rate is not None and rate <= 0:
                raise UsageError(f"the {name} must be more than 0, not {rate}", "Give frames per second, such as 25.")
        self.start = start or Fraction(0)
        self.end = end
        if self.start < 0 or (end is not None and end <= self.start):
            raise UsageError(
                f"no time lies between {float(self.start):g} s and {'the end' if end is None else f'{float(end):g} s'}",
                "Give a start of 0 s or more, and an end after it.",
            )
        self.path = Path(path)
        self.max_rate = max_rate
        self.info: VideoInfo = info or probe(self.path, fps, deinterlace)
        self._opened = opened
        self.warnings: list[str] = []
        self._view = self.view(box, size)
        self._closed = threading.Event()
        self._running: list[Generator[tuple[Frame, ...], None, None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every iteration and release the file."""
        self._closed.set()
        for generator in self._running:
            try:
                generator.close()
            except ValueError:
                # Running in another thread, which sees the flag at its next frame and releases the file itself.
                continue
        self._running.clear()
        if self._opened is not None:
            self._opened.close()

    def __iter__(self) -> Iterator[Frame]:
        return (frame for (frame,) in self.through((self._view,)))

    def view(self, box: Box | None = None, size: tuple[int, int] | None = None) -> View:
        """Return a view of these frames for `decoded`: a part of the displayed picture, and its size."""
        return View((self.info.width, self.info.height), box, size)

    def decoded(self) -> Iterator[Pending]:
        """Yield the frames from `start` to `end` before conversion, thinned to `max_rate`: `frame.picture(view)`, with
        a view from `view`, converts any part of one to any size, any number of times."""
        opened, self._opened = self._opened, None
        due = self.start
        for pending in pending_frames(self.info, self.start, self._warn, opened):
            if self._closed.is_set():
                return
            if self.end is not None and pending.time >= self.end:
                break
            if pending.time < self.start or (self.max_rate is not None and pending.time < due):
                continue
            if self.max_rate is not None:
                # Counted from the start, not from 0, so that the step after the first frame is not shorter.
                due = self.start + ((pending.time - self.start) * self.max_rate // 1 + 1) / self.max_rate
            duration = pending.duration
            if self.end is not None:
                # Cut at the end, but no shorter than a nominal step, so that a constant rate stays constant.
                duration = min(duration, max(self.end - pending.time, 1 / self.info.rate))
            yield Pending(pending.picture, pending.time - self.start, duration)

    def through(self, views: Sequence[View]) -> Generator[tuple[Frame, ...], None, None]:
        """Yield each frame through each of these views, decoding it once."""
        generator = self._frames(views)
        self._running.append(generator)
        return generator

    def _frames(self, views: Sequence[View]) -> Generator[tuple[Frame, ...], None, None]:
        index = 0
        for frame in self.decoded():
            pictures = {view: frame.picture(view) for view in dict.fromkeys(views)}
            shown = [picture for view in views if (picture := pictures[view]) is not None]
            if len(shown) < len(views):
                continue
            yield tuple(Frame(each.pixels, index, frame.time, frame.duration, each.content) for each in shown)
            index += 1
        if index == 0 and not self._closed.is_set():
            length = self.info.duration
            hint = f"It is {float(length):.2f} s long." if length else "Check --start and --end."
            if self.info.timecode is not None and length and self.start > length:
                hint += f" For its own timecodes, which begin at {self.info.timecode}, add --timecode."
            raise InputError(f"{self.path.name} has no readable frame in the requested part", hint)

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


class Clip:
    """A part of a video, an animation or a folder of frames, probed once and read any number of times.

    The first reader continues with the file that was opened for probing.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction | None = None,
        deinterlace: Deinterlace = "auto",
        start: Fraction | None = None,
        end: Fraction | None = None,
        reading: ReadOptions = PLAIN,
    ) -> None:
        """Probe the file. Raises InputError.

        fps, deinterlace, start, end: see `Reader`; `start` and `end` may be set later.  reading: how pictures are read.
        """
        self.path = Path(path)
        self.fps = fps
        self.deinterlace = deinterlace
        self.start = start or Fraction(0)
        self.end = end
        found = probe_open(self.path, fps, deinterlace, reading)
        self._opened = None if isinstance(found, VideoInfo) else found
        self.info = found if isinstance(found, VideoInfo) else found.info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file, unless a reader has taken it over."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def reader(
        self,
        begin: Fraction = Fraction(0),
        end: Fraction | None = None,
        *,
        size: tuple[int, int] | None = None,
        max_rate: Fraction | None = None,
    ) -> Reader:
        """Return a reader of the frames with begin <= time < end, in seconds since `start`; their times count from
        `begin`. See `Reader`."""
        stop = self.end if end is None else self.start + end
        opened, self._opened = self._opened, None
        return Reader(
            self.path,
            fps=self.fps,
            start=self.start + begin,
            end=stop if self.end is None or stop is None else min(self.end, stop),
            size=size,
            max_rate=max_rate,
            deinterlace=self.deinterlace,
            info=self.info,
            opened=opened,
        )
