"""Probing a file: size, rate, length, colours and sound, from its header and its first frame."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fommctl.errors import InputError
from fommctl.media import Deinterlace, plates, sequences, stills, timecode
from fommctl.media.colour import ColourTags, read_tags
from fommctl.media.conversion import has_alpha, square_pixels
from fommctl.media.decoding import (
    UPRIGHT,
    Decoded,
    Decoder,
    Orientation,
    orientation_of,
    stated_parity,
)
from fommctl.media.files import (
    DEFAULT_RATE,
    check_file,
    lookup,
    nominal_rate,
    opened,
    side_data,
    stated_end,
    time_base,
    video_stream,
)
from fommctl.media.layouts import take_layout
from fommctl.media.limits import check_size
from fommctl.media.read_options import PLAIN, ReadOptions


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """A sound stream: index in the file, codec, language (ISO 639-2) if stated."""

    index: int
    codec: str
    language: str | None
    default: bool
    channels: int = 1
    rate: int = 0
    """Samples per second; 0 if unknown."""

    @property
    def kind(self) -> tuple[str, str | None, int, int]:
        """The properties that two tracks must share to be left and right of one sound."""
        return self.codec, self.language, self.channels, self.rate


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, an image, a folder of frames or a pattern."""

    path: Path
    kind: Literal["video", "image", "sequence"]
    width: int
    """Displayed size in pixels: after rotation and with square pixels."""
    height: int
    rate: Fraction
    """Nominal frame rate; the average if the rate varies."""
    frames: int | None
    """Number of frames, from the header or estimated; None if unknown."""
    duration: Fraction | None
    """Seconds from the first frame to the end of the last."""
    container: str
    """ffmpeg's name of the file format, such as mov, matroska or png."""
    video_codec: str
    pix_fmt: str
    has_alpha: bool
    colour: ColourTags
    hdr: bool
    audio: tuple[AudioTrack, ...] = ()
    timecode: str | None = None
    origin: Fraction = Fraction(0)
    """Timestamp of the first frame, in seconds: time 0 on the file's clock."""
    orientation: Orientation = UPRIGHT
    peak: float | None = None
    """Brightest light of HDR material in cd/m2, if stated."""
    parity: str | None = None
    """Which field comes first in interlaced footage (see `decoding.stated_parity`); None for progressive footage."""
    deinterlace: Deinterlace = "off"
    """How it is deinterlaced; already taken into account in `rate` and `frames`."""
    sample_aspect: Fraction = Fraction(1)
    """Width over height of a coded pixel; already taken into account in `width` and `height`."""
    reading: ReadOptions = PLAIN
    """How its pictures are read, if they are image files."""
    tick: Fraction | None = None
    """Unit of a video file's timestamps, in seconds."""
    reel: str | None = None
    first_number: int | None = None
    """Number of the first picture of a sequence, if the numbers in the names are frame numbers."""

    @property
    def coded_rate(self) -> Fraction:
        """Frame rate of the file before deinterlacing: frames, not fields, per second."""
        return self.rate / 2 if self.deinterlace == "field" else self.rate


@dataclass(slots=True)
class OpenVideo:
    """A video file that was opened for probing and can be read from its first frame on."""

    info: VideoInfo
    container: InputContainer
    stream: VideoStream
    decoder: Decoder
    frames: Iterator[Decoded]
    """All frames; the first is already decoded."""
    _stack: ExitStack

    def close(self) -> None:
        """Release the file."""
        self._stack.close()


def probe(path: Path, fps: Fraction | None = None, deinterlace: Deinterlace = "auto") -> VideoInfo:
    """Read the header and decode the first frame.

    path: a video, an image, a folder of frames or a printf pattern such as `frames/%05d.png`.
    fps: the rate of folders, patterns and single images; 25 by default.  deinterlace: see `Deinterlace`. Raises
    InputError, and MissingError for files of post-production without OpenImageIO.
    """
    found = probe_open(path, fps, deinterlace)
    if isinstance(found, VideoInfo):
        return found
    with closing(found):
        return found.info


def probe_open(
    path: Path, fps: Fraction | None = None, deinterlace: Deinterlace = "auto", reading: ReadOptions = PLAIN
) -> VideoInfo | OpenVideo:
    """Probe like `probe`, but leave a video file open for a reader that continues with it.  reading: how pictures are
    read."""
    path = Path(path)
    if os.path.isdir(path) or sequences.is_sequence(path):
        return _probe_sequence(path, fps, reading)
    check_file(path)
    still = stills.identify(path)
    if still is not None and not still.animated:
        return _of_still(path, path, still, "image", fps, reading, frames=1)
    if still is not None and still.format.lower() in stills.ANIMATED_CODECS:
        return _probe_animation(path, still)
    with ExitStack() as stack:
        container = stack.enter_context(opened(path))
        stream = video_stream(container, path)
        decoder = Decoder(container, stream)
        frames = decoder.frames()
        first = next(frames, None)
        if first is None:
            raise InputError(f"{path.name} has no frame that can be decoded", "Check that it was copied whole.")
        info = _of_video(path, container, stream, first, deinterlace)
        return OpenVideo(info, container, stream, decoder, itertools.chain((first,), frames), stack.pop_all())


def _probe_sequence(path: Path, fps: Fraction | None, reading: ReadOptions) -> VideoInfo:
    found = sequences.listed(path)
    if reading.gap == "fail":
        _check_complete(path, found)
    for number, file in found:
        still = stills.identify(file)
        if still is not None:
            length = found[-1][0] - number + 1
            if plates.needs_openimageio(file):
                _check_alike(path, found)
                fps = fps or _counted_rate(file, found[found.index((number, file)) :])
            return _of_still(path, file, still, "sequence", fps, reading, frames=len(found), length=length)
        stills.check_format(file)
    raise InputError(f"{path}: none of its {len(found)} pictures can be read", "Check that they were copied whole.")


def _counted_rate(file: Path, pictures: list[tuple[int, Path]]) -> Fraction | None:
    """Return the rate at which timecodes count from `file` to the last picture, if no header states the rate."""
    said = plates.read_header(file).attributes
    if said.rate is not None or said.timecode is None:
        return None
    rates = _DROP_FRAME_RATES if ";" in said.timecode else _RATES
    for number, other in reversed(pictures):
        try:
            code = plates.read_header(other).attributes.timecode
        except InputError:
            # Damaged pictures are handled when they are read.
            continue
        later = number - pictures[0][0]
        return next((rate for rate in rates if timecode.shifted(said.timecode, later, rate) == code), None)
    return None


_RATES = (DEFAULT_RATE, *map(Fraction, (24, 30, 48, 50, 60)))
_DROP_FRAME_RATES = Fraction(30000, 1001), Fraction(60000, 1001)


def _check_alike(path: Path, found: list[tuple[int, Path]]) -> None:
    """Raise InputError if OpenEXR or DPX pictures differ in size, and so are not one shot."""
    first: tuple[int, int] | None = None
    for _, file in found:
        try:
            header = plates.read_header(file)
        except InputError:
            # Damaged pictures are handled when they are read.
            continue
        first = first or (header.width, header.height)
        if (header.width, header.height) != first:
            raise InputError(
                f"{path}: {file.name} is {header.width}x{header.height} and the pictures before {first[0]}x{first[1]}",
                "Render it again, or name the range that belongs together: name.1001-1050#.exr.",
            )


def _check_complete(path: Path, found: list[tuple[int, Path]]) -> None:
    """Raise InputError if numbers are missing."""
    first = sequences.first_number(path) or 0
    present = {position for position, _ in found}
    missing = [first + position for position in range(found[-1][0]) if position not in present]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(f"{path} has gaps: {listed}", "Render them, or use --on-gap hold or black.")


def _of_still(
    path: Path,
    file: Path,
    still: stills.Still,
    kind: Literal["image", "sequence"],
    fps: Fraction | None,
    reading: ReadOptions,
    frames: int,
    length: int = 1,
) -> VideoInfo:
    """Return the properties of a picture, or of numbered pictures.

    path: the input.  file: the picture with the header `still`.
    """
    said = plates.read_header(file).attributes if plates.needs_openimageio(file) else plates.Attributes()
    rate = fps or said.rate or DEFAULT_RATE
    return VideoInfo(
        path=path,
        kind=kind,
        width=still.width,
        height=still.height,
        rate=rate,
        frames=frames,
        duration=length / rate,
        container=still.format.lower(),
        video_codec=still.format.lower(),
        pix_fmt="rgba" if still.has_alpha else "rgb24",
        has_alpha=still.has_alpha,
        colour=ColourTags(),
        hdr=False,
        timecode=said.timecode,
        reel=said.reel,
        first_number=sequences.first_number(path) if kind == "sequence" else None,
        reading=reading,
    )


def _probe_animation(path: Path, still: stills.Still) -> VideoInfo:
    delays = stills.delays(path)
    duration = Fraction(sum(delays), 1000)
    return VideoInfo(
        path=path,
        kind="video",
        width=still.width,
        height=still.height,
        rate=len(delays) / duration,
        frames=len(delays),
        duration=duration,
        container=still.format.lower(),
        video_codec=still.format.lower(),
        pix_fmt="rgba" if still.has_alpha else "rgb24",
        has_alpha=still.has_alpha,
        colour=ColourTags(),
        hdr=False,
    )


def _of_video(
    path: Path, container: InputContainer, stream: VideoStream, first: Decoded, deinterlace: Deinterlace
) -> VideoInfo:
    frame, origin, aspect = first
    check_size(path.name, frame.width, frame.height)
    orientation = orientation_of(frame)
    width, height = orientation.size(square_pixels(frame, aspect))
    check_size(path.name, width, height)
    rate = nominal_rate(stream)
    parity = stated_parity(stream, frame)
    # `field` applies to footage that is interlaced from its beginning.
    doubled = 2 if deinterlace == "field" and parity is not None else 1
    duration = _duration(container, stream, origin)
    tags = read_tags(frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
    return VideoInfo(
        path=path,
        kind="video",
        width=width,
        height=height,
        rate=rate * doubled,
        frames=(stream.frames or (round(duration * rate) if duration else 0)) * doubled or None,
        duration=duration,
        container=container.format.name.split(",")[0],
        video_codec=stream.codec_context.codec.canonical_name,
        pix_fmt=frame.format.name,
        has_alpha=has_alpha(frame),
        colour=tags,
        hdr=tags.hdr,
        audio=_audio(container),
        timecode=_stated(container, stream, "timecode"),
        origin=origin,
        orientation=orientation,
        peak=_peak(frame),
        parity=parity,
        deinterlace="auto" if deinterlace == "field" and parity is None else deinterlace,
        sample_aspect=aspect,
        tick=time_base(stream),
        reel=_stated(container, stream, "reel_name"),
    )


def _duration(container: InputContainer, stream: VideoStream, origin: Fraction) -> Fraction | None:
    """Return seconds from the first frame to the end of the picture; None if the file states no duration."""
    end = stated_end(stream)
    if end is not None and end > origin:
        return end - origin
    if stream.duration:
        return stream.duration * time_base(stream)
    if container.duration:
        return Fraction(container.duration, av.time_base)
    return None


def _audio(container: InputContainer) -> tuple[AudioTrack, ...]:
    return tuple(
        AudioTrack(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name if stream.codec_context else "unknown",
            language=_language(stream.metadata),
            default=bool(stream.disposition & Disposition.default),
            channels=len(take_layout(stream.codec_context).channels) if stream.codec_context else 0,
            rate=stream.codec_context.sample_rate if stream.codec_context else 0,
        )
        for stream in container.streams.audio
    )


def _language(metadata: Mapping[str, str]) -> str | None:
    language = lookup(metadata, "language")
    return None if language == "und" else language


def _stated(container: InputContainer, stream: VideoStream, key: str) -> str | None:
    """Return a metadata value of the picture stream, else of the file, else of any other stream."""
    others = [other.metadata for other in container.streams]
    return next(filter(None, (lookup(each, key) for each in [stream.metadata, container.metadata, *others])), None)


def _peak(frame: VideoFrame) -> float | None:
    """Return MaxCLL in cd/m2, else the peak of the mastering display, else None."""
    stated = side_data(frame)
    light = stated.get(Type.CONTENT_LIGHT_LEVEL)
    if light is not None and len(light) >= 8:
        brightest = int(struct.unpack("=2I", light[:8])[0])
        if brightest > 0:
            return float(brightest)
    mastering = stated.get(Type.MASTERING_DISPLAY_METADATA)
    if mastering is not None and len(mastering) >= 88:
        # Ten rationals: primaries (6), white point (2), least and greatest luminance; then two flags.
        *_, numerator, denominator, _has_primaries, has_luminance = struct.unpack("=22i", mastering[:88])
        if has_luminance and denominator > 0 and numerator > 0:
            return float(numerator / denominator)
    return None
