"""Sources of frames: videos, animations, folders, pictures. Frames are converted only on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from fommctl.errors import InputError
from fommctl.media import plates, sequences, stills
from fommctl.media.boxes import Box
from fommctl.media.conversion import Converter, View, square_pixels
from fommctl.media.decoding import Damage, Decoded, Decoder, deinterlaced
from fommctl.media.files import as_fraction, opened, seek, time_base, video_stream
from fommctl.media.probe import OpenVideo, VideoInfo
from fommctl.media.resampling import Pixels, content, over_black

_INDEXED = frozenset({"mov", "matroska", "avi"})
"""Containers whose header states the duration of the picture, so that a truncated file can be recognised."""
_SEEKABLE = frozenset({"mov", "matroska"})
"""Containers in which timestamps stay exact after seeking. In MPEG program streams, and in AVI with frames coded out of
order, frames then get their neighbours' times."""
_SEEK_FROM = 1
"""Seconds from which on seeking is worthwhile."""
_STEPS_BACK = (0, 2, 10, 60)
"""Seconds before the start to seek to, in turn: an index by decoding times may lead past it, some list few key
frames."""
_ROUNDING = Fraction(1, 500)
"""Containers may round durations to milliseconds."""

_CUT_SHORT = "{} is cut short or damaged: it ends in the middle of a frame"
_TRANSPORT_PACKETS = (188, 192, 204)
"""Packet sizes of MPEG transport streams in bytes: plain, with time codes, with error correction."""

_GIF_FRAME = b"!\xf9\x04"
"""Beginning of the block that precedes each frame."""

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A converted frame."""

    pixels: Pixels
    content: Box | None = None
    """If its aspect ratio differs from the clip's: its box between the black bars, in pixels."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A frame with its time and duration in seconds; `picture(view)` converts any part of it, and returns None if the
    frame cannot be read."""

    picture: Callable[[View], Picture | None]
    time: Fraction
    duration: Fraction


def pending_frames(info: VideoInfo, start: Fraction, warn: Warn, opened: OpenVideo | None = None) -> Iterator[Pending]:
    """Yield the frames of any input in order; frames before `start` (seconds) may be skipped.

    warn: called with a message for everything that cannot be read.  opened: the file from `probe_open`, which is read
    and closed.  Raises InputError.
    """
    if info.kind == "image":
        read = cache(lambda: over_black(*stills.decode(info.path, options=info.reading)))
        yield Pending(lambda view: Picture(view.apply(read())), Fraction(0), 1 / info.rate)
    elif info.kind == "sequence":
        yield from _sequence(info, warn)
    elif info.video_codec in stills.ANIMATED_CODECS:
        yield from _animation(info, warn)
    else:
        yield from _Video(info, start, warn, opened).frames()


def _sequence(info: VideoInfo, warn: Warn) -> Iterator[Pending]:
    found = sequences.listed(info.path)
    length = found[-1][0] + 1
    black = info.reading.gap == "black"
    if length > len(found):
        instead = "black frames stand" if black else "the frame before stays"
        count = length - len(found)
        what = "1 number is missing" if count == 1 else f"{count} numbers are missing"
        warn(f"{info.path}: {what}; {instead} in {'its' if count == 1 else 'their'} place")
    following = [position for position, _ in found[1:]] + [length]
    step = 1 / info.rate
    for (position, file), after in zip(found, following, strict=True):
        lasts = step if black else (after - position) * step
        yield Pending(_picture(file, info, warn), position * step, lasts)
        for missing in range(position + 1, after) if black else ():
            empty = np.zeros((info.height, info.width, 3), np.uint8)
            yield Pending(_shown(empty), missing * step, step)


def _picture(file: Path, info: VideoInfo, warn: Warn) -> Callable[[View], Picture | None]:
    whole = (info.width, info.height)

    @cache
    def read() -> Picture | None:
        try:
            pixels = over_black(*_decoded(file, info, warn))
        except plates.NotFiniteError:
            raise
        except InputError as error:
            if info.reading.gap == "fail":
                raise
            warn(f"{error.message}; the frame was left out")
            return None
        size = (pixels.shape[1], pixels.shape[0])
        place = content(size, whole)
        if place is not None:
            warn(f"{info.path}: pictures of another shape were fitted into that of the first, with black bars")
        elif size != whole:
            warn(f"{info.path}: pictures of other sizes were scaled to that of the first")
        return Picture(pixels, place)

    def convert(view: View) -> Picture | None:
        picture = read()
        return None if picture is None else Picture(view.apply(picture.pixels), picture.content)

    return convert


def _decoded(file: Path, info: VideoInfo, warn: Warn) -> tuple[Pixels, Pixels | None]:
    if not plates.needs_openimageio(file):
        return stills.decode(file, options=info.reading)
    plate = plates.read_plate(file, info.reading)
    if plate.replaced:
        warn(f"{info.path}: pixels with NaN or infinity were made black, in {file.name} {plate.replaced}")
    return plate.bytes()


def _animation(info: VideoInfo, warn: Warn) -> Iterator[Pending]:
    time = Fraction(0)
    for pixels, alpha, milliseconds in stills.animation(info.path, warn):
        duration = Fraction(milliseconds, 1000)
        yield Pending(_shown(over_black(pixels, alpha)), time, duration)
        time += duration
    if _ends_early(info):
        warn(_CUT_SHORT.format(info.path.name))


def _shown(pixels: Pixels) -> Callable[[View], Picture]:
    return lambda view: Picture(view.apply(pixels))


class _Video:
    """Frames of a video file from its picture stream."""

    def __init__(self, info: VideoInfo, start: Fraction, warn: Warn, opened: OpenVideo | None = None) -> None:
        self.info = info
        self._open = opened
        self.start = start
        self.warn = warn
        self._converters: dict[View, Converter] = {}
        self._shape: tuple[int, int, Fraction] | None = None
        self._content: Box | None = None
        self._changed = False

    def frames(self) -> Iterator[Pending]:
        """Yield each frame with the time to the next one, for which one frame is buffered."""
        held: Decoded | None = None
        for decoded in deinterlaced(self._decoded(), self.info.deinterlace, self.info.parity, 1 / self.info.coded_rate):
            if held is not None:
                yield self._pending(held, decoded.time - held.time)
            held = decoded
        if held is not None:
            duration = self._last_duration(held.frame)
            yield self._pending(held, duration)
            self._check_length(held.time + duration)

    def _pending(self, decoded: Decoded, duration: Fraction) -> Pending:
        frame, time, aspect = decoded
        place = self._place(frame, time, aspect)
        return Pending(lambda view: Picture(self._converter(view)(frame, aspect), place), time, duration)

    def _converter(self, view: View) -> Converter:
        """Return the converter of a view, cached."""
        info = self.info
        if view not in self._converters:
            self._converters[view] = Converter(view, info.orientation, info.colour, info.peak)
        return self._converters[view]

    def _place(self, frame: VideoFrame, time: Fraction, aspect: Fraction) -> Box | None:
        """Return the frame's box in the first frame's picture (None: all of it); warn of the first change of size."""
        shape = (frame.width, frame.height, aspect)
        if shape != self._shape:
            info, self._shape = self.info, shape
            size = info.orientation.size(square_pixels(frame, aspect))
            whole = (info.width, info.height)
            self._content = content(size, whole)
            if size != whole and not self._changed:
                self._changed = True
                done = "scaled" if self._content is None else "fitted into the first one's shape, with black bars"
                became = f"{whole[0]}x{whole[1]} to {size[0]}x{size[1]} pixels at {float(time):.2f} s"
                self.warn(f"{info.path.name} changes from {became}: later frames are {done}")
        return self._content

    def _last_duration(self, frame: VideoFrame) -> Fraction:
        """Return the last frame's duration: as stated, unless that is the rounded nominal step."""
        step = 1 / self.info.rate
        if self.info.parity is not None and self.info.deinterlace != "off":
            return step
        stated = (frame.duration or 0) * (as_fraction(frame.time_base) or Fraction(0))
        return stated if stated > 0 and abs(stated - step) > _ROUNDING else step

    def _decoded(self) -> Iterator[Decoded]:
        """Yield frames with their times since the origin, from a key frame at or before `start` on."""
        if self.start >= _SEEK_FROM and self.info.container in _SEEKABLE:
            for target in (self.start - step for step in _STEPS_BACK if step < self.start):
                frames = self._pass(target)
                first = next(frames, None)
                if first is not None and first.time <= self.start:
                    yield first
                    yield from frames
                    return
                frames.close()
        # No usable index: read the file from its beginning.
        yield from self._pass(None)

    def _pass(self, target: Fraction | None) -> Generator[Decoded, None, None]:
        with self._opened() as video:
            decoder, frames = video.decoder, video.frames
            if target is not None:
                ticks = int((self.info.origin + target) / time_base(video.stream))
                if not seek(video.container, video.stream, ticks):
                    return
                decoder = Decoder(video.container, video.stream)
                frames = decoder.frames()
            complete = target is None
            try:
                for frame, time, aspect in frames:
                    if not complete and frame.key_frame:
                        # Frames shown before the first key frame are incomplete after a seek; that is no damage.
                        complete, decoder.damage = True, Damage()
                    since_origin = time - self.info.origin
                    if complete:
                        yield Decoded(frame, since_origin, aspect)
                    elif since_origin > self.start:
                        return
            finally:
                for message in decoder.damage.messages(self.info.path):
                    self.warn(message)

    @contextmanager
    def _opened(self) -> Iterator[OpenVideo]:
        """Yield the file at its first frame: the first time as left open by the probe, later opened again."""
        video, self._open = self._open, None
        if video is None:
            with opened(self.info.path) as container:
                stream = video_stream(container, self.info.path)
                decoder = Decoder(container, stream)
                yield OpenVideo(self.info, container, stream, decoder, decoder.frames(), ExitStack())
        else:
            with closing(video):
                yield video

    def _check_length(self, end: Fraction) -> None:
        info, expected = self.info, self.info.duration
        if expected is not None and info.container in _INDEXED:
            if end < expected - max(2 / info.rate, expected / 100):
                length = f"only {float(end):.2f} of {float(expected):.2f} s could be read"
                self.warn(f"{info.path.name} is cut short: {length}")
        elif _ends_early(info):
            self.warn(_CUT_SHORT.format(info.path.name))


def _ends_early(info: VideoInfo) -> bool:
    """Return whether a file without a stated duration is truncated."""
    size = info.path.stat().st_size
    if info.container == "mpegts":
        return all(size % packet for packet in _TRANSPORT_PACKETS)
    if info.container == "gif":
        return not _reaches_trailer(info.path)
    return info.container == "webp" and stills.is_broken_webp(info.path)


def _reaches_trailer(path: Path) -> bool:
    """Return whether the blocks of a GIF are intact up to its trailer (GIF89a, appendix B), with no frame after it:
    decoders do not report damaged ones."""

    def colours(flags: int) -> int:
        return 3 << (flags % 8 + 1) if flags >= 0x80 else 0

    with path.open("rb") as file:
        head = file.read(13)
        file.seek(colours(head[10]), os.SEEK_CUR)
        while (kind := file.read(1)) != b";":
            if kind == b"!":
                file.seek(1, os.SEEK_CUR)
            elif kind == b"," and len(described := file.read(9)) == 9:
                file.seek(colours(described[8]) + 1, os.SEEK_CUR)
            else:
                return False
            while size := file.read(1).rstrip(b"\0"):
                file.seek(size[0], os.SEEK_CUR)
        return _GIF_FRAME not in file.read()
