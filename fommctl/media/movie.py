"""Writing one video file with sound, frame by frame."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from fommctl.errors import FULL_DISK, OutputError
from fommctl.files import HeldFolder, keep_copy, publish, temporary_path
from fommctl.media.colour import ColourTags, Converter, MatrixConverter, output_colour, tag
from fommctl.media.containers import Encoding
from fommctl.media.files import pulled
from fommctl.media.marking import TRAINED_ALGORITHMIC_MEDIA, Mark, add_to_gif, add_xmp_box
from fommctl.media.resampling import over_black
from fommctl.media.sound import AudioSource, CopiedSound, Sound, open_sound

Frame = NDArray[Any]
"""(H, W, C): uint8 sRGB, or float32 in the space of the result."""
_USUAL_CLOCKS = lcm(90000, 1000, 600, 15360, 12800)
"""Common multiple of the ticks per second of MPEG, Matroska, QuickTime and ffmpeg's MP4 files."""
_FINEST_CLOCK = 1 << 25
"""Most ticks per second: MP4 stores the duration of a frame in 32 bits, and a picture may be shown for minutes."""
_INTERLEAVING = 2_000_000
"""Most microseconds of video that wait for sound: if sound ends early, the rest must not pile up in memory."""
_TIMECODE = re.compile(r"\d\d:\d\d:\d\d([:;.])\d\d")


def laid_over_black(pixels: Frame) -> Frame:
    """Composite (H, W, 4) with straight alpha over black: (H, W, 3)."""
    if pixels.dtype == np.uint8:
        return over_black(pixels[..., :3], pixels[..., 3])
    return np.ascontiguousarray(pixels[..., :3] * pixels[..., 3:4])


def as_frame(pixels: Frame) -> av.VideoFrame:
    """Convert (H, W, 3 or 4) uint8, or (H, W, 1, 3 or 4) of a float signal in [0, 1], to a frame of 8 or 16 bits."""
    if pixels.dtype == np.uint8:
        name = "rgba" if pixels.shape[2] == 4 else "rgb24"
    else:
        name = {1: "gray16le", 4: "rgba64le"}.get(pixels.shape[2], "rgb48le")
        pixels = to_codes(pixels)
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), name)


def to_codes(pixels: Frame) -> NDArray[np.uint16]:
    """Convert a signal in [0, 1] to 16 bits, clipping values outside."""
    codes: NDArray[np.uint16] = np.clip(np.rint(pixels * np.float32(65535)), 0, 65535).astype(np.uint16)
    return codes


@dataclass(frozen=True)
class PictureFormat:
    """Size in pixels, nominal frames per second, and the unit of the timestamps in seconds."""

    width: int
    height: int
    rate: Fraction
    time_base: Fraction


def choose_time_base(encoding: Encoding, rate: Fraction, source: Fraction | None) -> Fraction:
    """Return the container's own unit of time, else `source`, else one in which multiples of 1/rate and of the usual
    clocks of video files are whole numbers."""
    if encoding.container.tick is not None:
        return encoding.container.tick
    if source is not None:
        return source
    clocks = [_USUAL_CLOCKS, 90000, 1]
    candidates = [*(lcm(clock, rate.numerator) for clock in clocks), clocks[0]]
    return Fraction(1, next((ticks for ticks in candidates if ticks <= _FINEST_CLOCK), _USUAL_CLOCKS))


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Convert errors of libav and the system while `path` is written into an OutputError."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if error.errno in FULL_DISK:
            raise OutputError(f"the disk is full: {path}", "Free some space or write elsewhere with -o.") from error
        if error.errno == errno.ENOENT and not path.parent.is_dir():
            reason = "its folder was moved or removed in the meantime"
            raise OutputError(f"cannot write {path}: {reason}", "Leave it in place until the end.") from error
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write {path}: {reason}", "Check the folder, the codec and its options.") from error


class PaletteConverter:
    """RGB to 256 colours chosen for each frame, dithered, one frame at a time.

    width, height: of the frames in pixels.  time_base: unit of their timestamps in seconds.
    """

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        self._graph = graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base)
        split = graph.add("split")
        # stats_mode and new: one palette per frame; one for the whole clip would need all of it in memory.
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=floyd_steinberg")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield the paletted frames that are ready after `frame`; None ends the stream."""
        self._graph.push(frame)
        yield from pulled(self._graph.vpull)


class Movie:
    """A video file under a temporary name, in a held folder; `finish` completes it, `abort` removes it."""

    def __init__(
        self,
        path: Path,
        temporary: Path,
        target: Path,
        encoding: Encoding,
        picture: PictureFormat,
        *,
        folder: HeldFolder,
        colour: ColourTags | None,
        audio: Sequence[AudioSource],
        metadata: Mapping[str, str],
        mark: Mark | None,
        timecode: str | None,
        reel: str | None = None,
        threads: int,
        overwrite: bool = False,
        warnings: list[str],
    ) -> None:
        self.warnings = warnings
        self._path = path
        self._temporary = temporary
        self._folder = folder
        self._target = target
        self._overwrite = overwrite
        self._published = False
        self._aside = temporary_path(target)
        """Path of the replaced file, until `release`."""
        self._encoding = encoding
        self._picture = picture
        self._mark = mark
        self._metadata = {**metadata, **self._marking()}
        self._timecode = self._fitting_timecode(timecode)
        self._reel = reel
        self._audio = audio if encoding.container.sound_encoder is not None else ()
        self._threads = threads
        self._tags = output_colour(colour, picture.width, picture.height, encoding)
        self._converter: Converter = (
            PaletteConverter(picture.width, picture.height, picture.time_base)
            if encoding.pix_fmt == "pal8"
            else MatrixConverter(encoding.pix_fmt, self._tags)
        )
        self._durations: dict[int, int] = {}
        self._last: int | None = None
        self._origin: tuple[int, int] | None = None
        """Presentation and decoding timestamps of the first packet, in ticks."""
        self._end = Fraction(0)
        self._container: Any = None
        self._sounds: list[Sound] = []
        try:
            with output_errors(path):
                self._start()
        except BaseException:
            self.abort()
            raise
        self.audio_codec: str | None = self._sounds[0].codec if self._sounds else None

    def write(self, pixels: Frame, time: Fraction, duration: Fraction) -> None:
        """Add a frame: (H, W, 3 or 4), shown from `time` for `duration` seconds."""
        with output_errors(self._path):
            for ready in self._converter.frames(self._video_frame(pixels, time, duration)):
                self._mux(ready)
            self._end = time + duration
            for sound in self._sounds:
                sound.pump(self._end)

    def finish(self) -> None:
        """Flush the encoders and complete the file; it is on the disk when this returns."""
        with output_errors(self._path):
            for ready in self._converter.frames(None):
                self._mux(ready)
            self._mux(None)
            for sound in self._sounds:
                sound.finish(self._end)
            # Network file systems report a full disk when a file is closed or synced, once to each open handle, and
            # FFmpeg ignores errors of its own close: hold the file open here too.
            with open(self._temporary, "rb+") as file:
                self._container.close()
                os.fsync(file.fileno())
            if self._add_what_muxers_lack():
                with open(self._temporary, "rb+") as file:
                    os.fsync(file.fileno())
        self._close_sounds()

    def publish(self, *, keep: bool) -> None:
        """Rename the file to its final name.  keep: keep a replaced file until `release`, so that `abort` restores
        it."""
        with output_errors(self._path):
            if keep and self._overwrite and self._target.exists():
                keep_copy(self._target, self._aside)
            publish(self._temporary, self._target, overwrite=self._overwrite)
        self._published = True

    def release(self) -> None:
        """Remove the replaced file."""
        self._aside.unlink(missing_ok=True)

    def abort(self) -> None:
        """Remove the written file, and restore a replaced one."""
        if self._published and self._aside.exists():
            os.replace(self._aside, self._target)
        elif self._published:
            self._target.unlink(missing_ok=True)
        self._aside.unlink(missing_ok=True)
        # Unlink before closing: closing an MP4 with its index in front would copy the whole file again.
        with contextlib.suppress(OSError):
            self._folder.remove(self._temporary.name)
        if self._container is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()
        self._close_sounds()
        self._folder.remove(self._temporary.name)

    def _marking(self) -> dict[str, str]:
        if self._mark is None:
            return {}
        # Matroska has no place for XMP, but accepts tags of any name.
        tags = self._encoding.container.muxer in ("matroska", "webm")
        kind = {"DIGITAL_SOURCE_TYPE": TRAINED_ALGORITHMIC_MEDIA} if tags else {}
        return {"comment": self._mark.comment, **kind}

    def _add_what_muxers_lack(self) -> bool:
        """Add the comment of a GIF, or XMP if the container has a place for it; return whether anything was added."""
        muxer, packet = self._encoding.container.muxer, b"" if self._mark is None else self._mark.xmp
        if muxer == "gif":
            add_to_gif(self._temporary, self._metadata.get("comment", ""), packet)
        elif muxer in ("mp4", "mov") and packet:
            add_xmp_box(self._temporary, packet)
        else:
            return False
        return True

    def _start(self) -> None:
        try:
            self._open(copy_sound=True)
        except (av.FFmpegError, ValueError):
            # Containers refuse some streams of codecs that they support, such as MP3 at 8 kHz in MP4.
            if not any(isinstance(sound, CopiedSound) for sound in self._sounds):
                raise
            self._container.close()
            self._close_sounds()
            self._open(copy_sound=False)
        coded = (self._stream.width, self._stream.height)
        if coded != (self._picture.width, self._picture.height):
            self.warnings.append(
                f"{self._encoding.encoder.name} holds even sizes only in {self._encoding.pix_fmt}:"
                f" {self._picture.width}x{self._picture.height} became {coded[0]}x{coded[1]}, with the border repeated"
            )

    def _open(self, copy_sound: bool) -> None:
        # With an explicit protocol, a name such as a:b.mp4 is not taken for a URL.
        target, muxer = f"file:{self._temporary}", self._encoding.container.muxer
        self._container = av.open(target, "w", format=muxer, container_options=self._muxer_options())
        self._stream = self._add_video()
        for source in self._audio:
            sound = open_sound(source, self._container, self._encoding.container, self.warnings, copy=copy_sound)
            self._sounds += [] if sound is None else [sound]
        self._container.metadata.update(self._metadata)
        if self._timecode is not None:
            self._container.metadata["timecode"] = self._timecode
        if self._reel is not None and self._encoding.container.muxer in ("mov", "mxf"):
            # MXF takes it from the file, QuickTime from the stream.
            self._container.metadata["reel_name"] = self._stream.metadata["reel_name"] = self._reel
        self._container.start_encoding()

    def _muxer_options(self) -> dict[str, str]:
        options = {"max_interleave_delta": str(_INTERLEAVING)}
        if self._encoding.container.muxer in ("mp4", "mov"):
            ticks = str(self._picture.time_base.denominator)
            options |= {"movflags": "+faststart", "video_track_timescale": ticks, "movie_timescale": ticks}
        elif self._encoding.container.muxer in ("matroska", "webm"):
            # No random identifiers in Matroska, so that equal runs give equal files.
            options["fflags"] = "+bitexact"
        return options

    def _add_video(self) -> Any:
        encoding, picture = self._encoding, self._picture
        if encoding.encoder.name == "libsvtav1":
            # The encoder prints a banner on stderr that none of its options turns off.
            os.environ.setdefault("SVT_LOG", "1")
        stream = self._container.add_stream(encoding.encoder.name, rate=picture.rate, options=dict(encoding.options))
        stream.width, stream.height = encoding.coded_size(picture.width, picture.height)
        stream.pix_fmt = encoding.pix_fmt
        context = stream.codec_context
        context.time_base = picture.time_base
        context.sample_aspect_ratio = Fraction(1)
        context.thread_count = self._threads
        stream.time_base = picture.time_base
        tag(context, self._tags)
        if encoding.encoder.name == "libx265" and encoding.container.muxer in ("mp4", "mov"):
            # Apple's players accept HEVC under this tag only.
            context.codec_tag = "hvc1"
        return stream

    def _fitting_timecode(self, timecode: str | None) -> str | None:
        """Return the timecode if the container can hold it and the frame rate fits; otherwise warn and return None."""
        if timecode is None:
            return None
        if self._encoding.container.muxer not in ("mov", "mxf"):
            self.warnings.append(f"the timecode {timecode} is left out: only .mov and .mxf hold one")
            return None
        match = _TIMECODE.fullmatch(timecode)
        drop_frame = match is not None and match[1] in ";."
        if match is None or (drop_frame and (self._picture.rate * 1001 / 30000).denominator != 1):
            self.warnings.append(f"the timecode {timecode} does not fit {self._picture.rate} frames/s and is left out")
            return None
        return timecode

    def _video_frame(self, pixels: Frame, time: Fraction, duration: Fraction) -> av.VideoFrame:
        if pixels.shape[2] == 4 and not self._encoding.alpha:
            pixels = laid_over_black(pixels)
        height, width = pixels.shape[:2]
        extra = (self._stream.height - height, self._stream.width - width)
        if any(extra):
            pixels = np.pad(pixels, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="edge")
        frame = as_frame(pixels)
        start, end = (round(instant / self._picture.time_base) for instant in (time, time + duration))
        if self._last is not None:
            # With a coarse clock, two frames may fall on one tick; players need increasing times.
            start = max(start, self._last + 1)
        self._last = frame.pts = start
        frame.time_base = self._picture.time_base
        self._durations[start] = max(1, end - start)
        return frame

    def _mux(self, frame: av.VideoFrame | None) -> None:
        packets = self._stream.encode(frame)
        for packet in packets:
            self._origin = self._origin or (packet.pts, packet.dts)
            if packet.pts in self._durations:
                packet.duration = self._durations.pop(packet.pts)
            if frame is None and packet is packets[-1]:
                self._lengthen(packet)
            self._container.mux(packet)

    def _lengthen(self, packet: Any) -> None:
        """Extend the last coded packet to the end of the video if another frame is shown last: MP4 adds up the
        durations of packets in coding order, which would drop the duration of the last frame shown."""
        if self._encoding.container.muxer in ("mp4", "mov") and self._origin and packet.pts != self._last:
            first_shown, first_coded = self._origin
            end = round(self._end / self._picture.time_base)
            packet.duration = max(1, end - first_shown - (packet.dts - first_coded))

    def _close_sounds(self) -> None:
        for sound in self._sounds:
            sound.close()
        self._sounds.clear()
