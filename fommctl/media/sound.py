"""Sound of a result: choosing tracks, reading them packet by packet, copying or transcoding them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.stream import Discard
from numpy.typing import NDArray

from fommctl.errors import InputError, UsageError
from fommctl.media.containers import Container
from fommctl.media.files import demuxed, open_container
from fommctl.media.layouts import Mixer, choose_layout, take_layout
from fommctl.media.probe import AudioTrack, VideoInfo
from fommctl.media.stills import LONGEST_PAUSE


class Sound(Protocol):
    """A sound track that is written as the video advances."""

    codec: str
    """The codec in the file, such as `aac`."""

    def pump(self, until: Fraction) -> None:
        """Write the sound up to `until` seconds of the output."""

    def finish(self, end: Fraction) -> None:
        """Write what is still buffered, none of it beyond `end` seconds of the output."""

    def close(self) -> None:
        """Release the input."""


def open_sound(
    source: AudioSource, output: Any, container: Container, warnings: list[str], *, copy: bool = True
) -> Sound | None:
    """Add the track to `output` (a PyAV container that is not started) and return its writer.

    copy: copy packets unchanged if the container supports their codec.
    Returns None, and appends the reason to `warnings`, if the sound cannot be read.
    """
    tracks: list[SoundInput] = []
    for index in (source.track, source.right):
        if index is None:
            continue
        track = open_input(replace(source, track=index, right=None), warnings)
        if track is None:
            _close(tracks)
            return None
        tracks.append(track)
    try:
        held = _holds(container, output, tracks[0])
        if copy and held and len(tracks) == 1:
            return CopiedSound(tracks[0], output, container, source)
        # A camera's pair of PCM tracks stays PCM if the container supports it.
        encoder = tracks[0].codec if held and tracks[0].codec.startswith("pcm_") and len(tracks) > 1 else None
        return TranscodedSound(tracks, output, encoder or str(container.sound_encoder), source, warnings)
    except (av.FFmpegError, ValueError) as error:
        _close(tracks)
        warnings.append(f"the sound is left out: {error}")
        return None


def _close(tracks: Sequence[SoundInput]) -> None:
    for track in tracks:
        track.close()


def _holds(container: Container, output: Any, track: SoundInput) -> bool:
    """Return whether packets of this sound codec can be copied to the container."""
    if container.sound is not None:
        return track.codec in container.sound
    # PyAV lists the names of encoders and decoders, which may differ from the codec's (`dca` decodes dts).
    return not {track.codec, track.stream.codec_context.name}.isdisjoint(output.supported_codecs)


class CopiedSound:
    """Copies packets, with their times shifted by a constant."""

    def __init__(self, track: SoundInput, output: Any, container: Container, source: AudioSource) -> None:
        self.codec = track.codec
        self._track = track
        self._source = source
        self._output = output
        self._stream = output.add_stream_from_template(track.stream)
        self._stream.metadata.update(language=track.language)
        self._matroska = container.muxer in ("matroska", "webm")
        self._held: av.Packet[Any] | None = None

    def pump(self, until: Fraction) -> None:
        """Write the packets that start before `until` seconds of the output, except the last."""
        stop = self._source.until(until)
        for packet in self._track.packets_before(stop + self._source.origin):
            shift = round(self._source.origin / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            if self._wanted(packet):
                self._mux_held()
                self._held = packet

    def finish(self, end: Fraction) -> None:
        """Write the last packet; its duration ends with the video, though its samples may not."""
        if self._held is not None and self._held.duration:
            left = round(self._source.until(end) / self._held.time_base) - (self._held.pts or 0)
            self._held.duration = max(1, min(self._held.duration, left))
        self._mux_held()

    def close(self) -> None:
        """Release the input."""
        self._track.close()

    def _wanted(self, packet: av.Packet[Any]) -> bool:
        """Return whether the packet is audible after time 0, or primes the decoder for one that is.

        MP4 hides sound before 0 by an edit list, so one packet for priming is kept. Matroska has no times before 0
        (they would shift the video) except for the pre-skip of Opus.
        """
        start, duration = packet.pts or 0, packet.duration or 0
        if self._matroska:
            return start >= -ceil(self._track.pre_skip / packet.time_base)
        return start + 2 * duration > 0

    def _mux_held(self) -> None:
        if self._held is not None:
            self._held.stream = self._stream
            self._output.mux(self._held)
            self._held = None


AUTO, ALL = "auto", "all"
_TRIED = 200
"""Packets without any sound after which a track counts as undecodable."""

Group = tuple[AudioTrack, ...]
"""One track, or two mono tracks that are left and right."""


def choose_tracks(
    info: VideoInfo, origin: Fraction, end: Fraction | None = None, *, wanted: str = AUTO, must: bool = False
) -> tuple[tuple[AudioSource, ...], list[str]]:
    """Return the sound of a result, one source per track, and warnings about the choice.

    origin, end: seconds on the file's own clock (see AudioSource).
    wanted: `auto` takes the default track (with its mono partner, if it is one of a pair), else the first that can be
    decoded; `all` takes every track; a number, from 1, takes that track alone.
    must: sound is required, as it is for a number. Raises InputError if sound is required and none can be decoded, and
    UsageError for a number that the file does not have.
    """
    groups = _groups(info.audio)
    if wanted not in (AUTO, ALL):
        if int(wanted) > len(info.audio):
            held = f"{len(info.audio)} sound track{'' if len(info.audio) == 1 else 's'}"
            hint = "They are numbered from 1; --audio-track all takes every one."
            raise UsageError(f"{info.path.name} has {held}, and no number {wanted}", hint)
        groups, must = [(info.audio[int(wanted) - 1],)], True
    elif wanted == AUTO:
        groups.sort(key=lambda group: not any(track.default for track in group))
    chosen: list[Group] = []
    dumb: list[Group] = []
    for group in groups:
        readable = all(_decodes(info, track, origin) for track in group)
        (chosen if readable else dumb).append(group)
        if readable and wanted != ALL:
            break
    warnings = [f"{_called(info, group)} of {info.path.name} cannot be decoded" for group in dumb]
    if groups and not chosen:
        if must:
            hint = "Convert the sound first, name another track with --audio-track, or use --audio none."
            raise InputError(warnings[0] if len(dumb) == 1 else f"no sound of {info.path.name} can be decoded", hint)
        warnings = [f"the sound is left out: {warning}" for warning in warnings]
    left = [group for group in groups if group not in chosen and group not in dumb]
    if left:
        names = ", ".join(_called(info, group) for group in left)
        warnings.append(f"left out of the sound of {info.path.name}: {names} (see --audio-track)")
    sources = [
        AudioSource(info.path, each[0].index, origin, end, *(track.index for track in each[1:])) for each in chosen
    ]
    return tuple(sources), warnings


def _groups(tracks: Sequence[AudioTrack]) -> list[Group]:
    """Group consecutive mono tracks of the same kind in pairs, and every other track by itself, in the file's order."""
    groups: list[Group] = []
    rest = list(tracks)
    while rest:
        pair = tuple(rest[:2])
        if len(pair) == 2 and pair[0].channels == 1 and pair[0].kind == pair[1].kind:
            groups.append(pair)
        else:
            groups.append(pair[:1])
        del rest[: len(groups[-1])]
    return groups


def _called(info: VideoInfo, group: Group) -> str:
    names = []
    for track in group:
        language = f" ({track.language})" if track.language else ""
        names.append(f"{info.audio.index(track) + 1}{language}")
    return f"track{'s' if len(names) > 1 else ''} {' and '.join(names)}"


def _decodes(info: VideoInfo, track: AudioTrack, origin: Fraction) -> bool:
    """Return whether the track can be decoded; also true if it has no packets from `origin` on."""
    sound = open_input(AudioSource(info.path, track.index, origin), [])
    if sound is None:
        return False
    tried = 0
    try:
        for packet in sound.packets_before(origin + 3600):
            try:
                if sound.stream.codec_context.decode(packet):
                    return True
            except av.FFmpegError:
                pass
            tried += 1
            if tried >= _TRIED:
                return False
        return tried == 0
    finally:
        sound.close()


_WORTH_SEEKING = Fraction(2)
_LEAD = Fraction(1, 2)
_SEEKABLE = ("mov,", "matroska,")
_OPUS_RATE = 48000


@dataclass(frozen=True)
class AudioSource:
    """A sound track, and the part of it that goes into the output."""

    path: Path
    track: int
    """Index of the stream in the file."""
    origin: Fraction
    """Seconds on the file's own clock that become time 0."""
    end: Fraction | None = None
    """Seconds on the file's own clock at which it stops; None: the end of the video."""
    right: int | None = None
    """Index of a second mono stream, which becomes the right channel; `track` is then the left one."""

    def until(self, instant: Fraction) -> Fraction:
        """Return the earlier of `instant` and the end of the part, in seconds of the output."""
        return instant if self.end is None else min(instant, self.end - self.origin)


class SoundInput:
    """An open sound track, whose packets always have a `pts`."""

    def __init__(self, container: Any, stream: Any, warnings: list[str]) -> None:
        self.stream = stream
        self.codec: str = stream.codec_context.codec.canonical_name
        self.layout = take_layout(stream.codec_context)
        self.language: str = stream.metadata.get("language", "und")
        self._container = container
        self._warnings = warnings
        self._packets: Iterator[Any] = demuxed(container, stream)
        self._next: Any = None
        self._clock = 0

    @property
    def pre_skip(self) -> Fraction:
        """Seconds at the start of an Opus stream that decoders discard (RFC 7845, section 5.1); 0 for other codecs."""
        header = self.stream.codec_context.extradata
        if self.codec != "opus" or not header or len(header) < 12:
            return Fraction(0)
        return Fraction(int.from_bytes(header[10:12], "little"), _OPUS_RATE)

    def packets_before(self, instant: Fraction) -> Iterator[Any]:
        """Yield the next packets, as long as they start before `instant` seconds on the file's clock."""
        while self._peek() and self._next.pts * self._next.time_base < instant:
            packet, self._next = self._next, None
            yield packet

    @property
    def exhausted(self) -> bool:
        """Whether every packet was read."""
        return not self._peek()

    def skip_to(self, instant: Fraction) -> None:
        """Seek to the last packet that starts at or before `instant` seconds on the file's clock.

        Formats other than MP4 and Matroska seek by the bit rate, which is not exact: they are read through instead.
        """
        unit, first = self.stream.time_base, self.stream.start_time or 0
        if instant - first * unit < _WORTH_SEEKING or not self._container.format.name.startswith(_SEEKABLE):
            return
        self._seek(round(instant / unit))
        if not self._peek() or self._next.pts * unit > instant:
            self._seek(first)

    def _seek(self, ticks: int) -> None:
        self._container.seek(ticks, stream=self.stream, backward=True)
        self._packets, self._next = demuxed(self._container, self.stream), None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _peek(self) -> bool:
        while self._next is None:
            try:
                packet = next(self._packets, None)
            except av.FFmpegError as error:
                self._warnings.append(f"the sound stops early: {error.strerror or error}".lower())
                packet = None
            if packet is None:
                self._packets = iter(())
                return False
            if packet.size:
                if packet.pts is None:
                    packet.pts = self._clock if packet.dts is None else packet.dts
                self._clock = packet.pts + (packet.duration or 0)
                self._next = packet
        return True


def open_input(source: AudioSource, warnings: list[str]) -> SoundInput | None:
    """Open the track for reading from shortly before its origin; None, with a warning, if that fails."""
    try:
        container = open_container(source.path)
        stream: Any = container.streams[source.track]
        if stream.type != "audio" or stream.codec_context is None or not stream.codec_context.sample_rate:
            container.close()
            warnings.append("the sound is left out: its codec or its rate is unknown")
            return None
        for other in container.streams:
            if other.index != source.track:
                other.discard = Discard.all
        sound = SoundInput(container, stream, warnings)
        sound.skip_to(source.origin - _LEAD)
        return sound
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        warnings.append(f"the sound is left out: {error}")
        return None


_BITS_PER_SECOND = {"aac": 96000, "libopus": 64000}
"""Bit rate per channel: transparent for speech, and nearly so for music."""
_STRAY = Fraction(1, 20)
"""Seconds by which timestamps may deviate before silence is inserted or sound is cut; rounded clocks stay below it."""
_BLOCK = 1 << 15


class TranscodedSound:
    """Decodes, resamples, trims to [0, end) and encodes. Samples are counted at the output's rate from time 0."""

    def __init__(
        self, tracks: Sequence[SoundInput], output: Any, encoder: str, source: AudioSource, warnings: list[str]
    ) -> None:
        """tracks: one track, or two that become left and right.  encoder: libav's name."""
        self.codec = av.Codec(encoder, "w").canonical_name
        self._tracks = tracks
        self._source = source
        self._output = output
        track, *others = tracks
        self._rate = _choose_rate(encoder, track.stream.codec_context.sample_rate)
        own = "mono" if others else choose_layout(encoder, self._rate, track.layout)
        self._layout = "stereo" if others else own
        channels = int(av.AudioLayout(self._layout).nb_channels)
        if not others and channels != len(track.layout.channels):
            warnings.append(f"the sound was mixed down from {track.layout.name} to {self._layout}")
        self._samples = [DecodedTrack(each, source.origin, self._rate, own, warnings) for each in tracks]
        self._stream = output.add_stream(encoder, rate=self._rate, layout=self._layout)
        if encoder in _BITS_PER_SECOND:
            self._stream.bit_rate = _BITS_PER_SECOND[encoder] * channels
        self._stream.codec_context.time_base = Fraction(1, self._rate)
        self._stream.metadata["language"] = track.language
        self._sent: int | None = None
        """Index of the sample to encode next; None before the first."""

    def pump(self, until: Fraction) -> None:
        """Encode the sound before `until` seconds of the output."""
        stop = self._source.until(until)
        for samples in self._samples:
            samples.read(stop)
        self._send(int(stop * self._rate))

    def finish(self, end: Fraction) -> None:
        """Flush decoder, resampler and encoder, none of it beyond `end` seconds of the output."""
        for samples in self._samples:
            samples.flush()
        self._send(int(self._source.until(end) * self._rate))
        self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        """Release the inputs."""
        for track in self._tracks:
            track.close()

    def _send(self, stop: int) -> None:
        """Encode the samples before the sample `stop`, as far as they are decoded."""
        begun = [each for each in self._samples if each.begun]
        if not begun:
            return
        # If one of two tracks has ended, or not begun, the other does not wait for it.
        going = [each.position for each in begun if not each.over]
        stop = min(stop, min(going) if going else max(each.position for each in begun))
        first = min(each.first for each in begun)
        if self._sent is None and first < stop:
            self._sent = first
        while self._sent is not None and self._sent < stop:
            until = min(stop, self._sent + _BLOCK)
            block = np.concatenate([each.take(self._sent, until) for each in self._samples], axis=1)
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), "flt", self._layout)
            frame.sample_rate = self._rate
            frame.pts = self._sent
            frame.time_base = Fraction(1, self._rate)
            self._sent += len(block)
            self._output.mux(self._stream.encode(frame))


class DecodedTrack:
    """Samples of one track at the output's rate and in its layout, counted from time 0 of the output.

    Gaps in the track's timestamps are filled with silence; samples before time 0 are dropped.
    """

    def __init__(self, track: SoundInput, origin: Fraction, rate: int, layout: str, warnings: list[str]) -> None:
        """origin: seconds on the file's own clock that become time 0."""
        self._track = track
        self._origin = origin
        self._rate = rate
        self._layout = layout
        self._warnings = warnings
        self._channels = int(av.AudioLayout(layout).nb_channels)
        self._mixer = Mixer(track.layout)
        self._resampler = self._new_resampler()
        self._queue: deque[NDArray[np.float32]] = deque()
        self.first = 0
        """Index of the first queued sample."""
        self.position = 0
        """Index of the next sample from the resampler; samples before 0 are dropped."""
        self._expected: Fraction | None = None
        """Time in the output at which the next decoded frame begins if nothing is missing."""
        self._surplus = 0
        """Samples to drop after the input's timestamps have jumped back."""
        self._ended = False

    @property
    def begun(self) -> bool:
        """Whether something was decoded."""
        return self._expected is not None

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._ended or self._track.exhausted

    def read(self, stop: Fraction) -> None:
        """Decode the packets that start before `stop` seconds of the output."""
        for packet in self._track.packets_before(stop + self._origin):
            self._decode(packet)

    def flush(self) -> None:
        """Queue what decoder and resampler have buffered."""
        self._decode(None)
        self._flush_resampler()

    def take(self, first: int, stop: int) -> NDArray[np.float32]:
        """Remove and return the samples from `first` to `stop`, (stop - first, channels); missing ones are silence."""
        taken = np.zeros((stop - first, self._channels), np.float32)
        while self._queue and self.first < stop:
            part = self._queue.popleft()
            begin, end = max(first, self.first), min(stop, self.first + len(part))
            if begin < end:
                taken[begin - first : end - first] = part[begin - self.first : end - self.first]
            if self.first + len(part) > stop:
                self._queue.appendleft(part[stop - self.first :])
                self.first = stop
                break
            self.first += len(part)
        return taken

    def _new_resampler(self) -> av.AudioResampler:
        return av.AudioResampler("flt", self._layout, self._rate)

    def _decode(self, packet: Any) -> None:
        try:
            for frame in self._track.stream.codec_context.decode(packet):
                if frame.sample_rate and not self._ended:
                    self._take(frame)
        except av.FFmpegError:
            message = "damaged sound became silence"
            if message not in self._warnings:
                self._warnings.append(message)

    def _take(self, frame: av.AudioFrame) -> None:
        """Resample a frame; insert silence before it, or cut it, if its time is not the expected one."""
        time = self._expected
        if frame.pts is not None and frame.time_base is not None:
            time = frame.pts * frame.time_base - self._origin
        if self._expected is None:
            self._expected = time or Fraction(0)
            self.position = round(self._expected * self._rate)
        elif time is not None and time - self._expected > LONGEST_PAUSE:
            self._ended = True
            self._warnings.append("the sound stops early: its timestamps jump by more than an hour")
            return
        elif time is not None and abs(time - self._expected) > _STRAY:
            self._flush_resampler()
            self._jump(round((time - self._expected) * self._rate))
            self._expected = time
        self._expected += Fraction(frame.samples, frame.sample_rate)
        # Timestamps are handled above; the resampler would try to compensate gaps by them.
        frame.pts = None
        for mixed in self._mixer(frame):
            mixed.pts = None
            try:
                parts = self._resampler.resample(mixed)
            except ValueError:
                # The input changes its rate or layout on the way.
                self._flush_resampler()
                parts = self._resampler.resample(mixed)
            for part in parts:
                self._append_packed(part)

    def _flush_resampler(self) -> None:
        for part in self._resampler.resample(None):
            if part is not None:
                self._append_packed(part)
        self._resampler = self._new_resampler()

    def _jump(self, samples: int) -> None:
        self._surplus += max(0, -samples)
        # One zero, broadcast: an hour of silence takes no memory.
        self._append(np.broadcast_to(np.float32(0), (max(0, samples), self._channels)))

    def _append_packed(self, frame: av.AudioFrame) -> None:
        self._append(np.asarray(frame.to_ndarray(), np.float32).reshape(-1, self._channels))

    def _append(self, samples: NDArray[np.float32]) -> None:
        """Queue samples (n, channels), without surplus ones and those before time 0."""
        cut = min(self._surplus, len(samples))
        self._surplus -= cut
        samples = samples[cut:]
        early = min(max(0, -self.position), len(samples))
        self.position += early
        samples = samples[early:]
        if len(samples):
            if not self._queue:
                self.first = self.position
            self._queue.append(samples)
            self.position += len(samples)


def _choose_rate(encoder: str, rate: int) -> int:
    """Return the input's sample rate if the encoder supports it, else 48 kHz, which is also the only one in MXF
    (pcm_s24le)."""
    rates = av.Codec(encoder, "w").audio_rates
    return 48000 if encoder in ("libopus", "pcm_s24le") or (rates is not None and rate not in rates) else rate
