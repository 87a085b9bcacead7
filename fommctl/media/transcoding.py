"""Sound decoded, brought to what the container holds, cut to the sample and encoded again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fommctl.media.layouts import Mixer, choose_layout
from fommctl.media.limits import LONGEST_PAUSE
from fommctl.media.sound_input import AudioSource, SoundInput

_BITS_PER_SECOND = {"aac": 96000, "libopus": 64000}
"""For one channel: transparent for speech and nearly so for music."""
_STRAY = Fraction(1, 20)
"""Seconds by which timestamps may stray before silence is put in or sound is cut: rounded clocks stray by less."""
_BLOCK = 1 << 15


class TranscodedSound:
    """Decodes, resamples, trims to [0, end) and encodes. Samples are counted at the output's rate from time 0."""

    def __init__(
        self, tracks: Sequence[SoundInput], output: Any, encoder: str, source: AudioSource, warnings: list[str]
    ) -> None:
        """tracks: one, or two that become left and right.  encoder: libav's name."""
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
        """The sample that is encoded next; None before the first."""

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
        # Where one of two tracks is over, or not there yet, the other does not wait for it.
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

    Silence stands where the track's timestamps leave a gap; nothing stands before time 0.
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
        """The first sample that is kept."""
        self.position = 0
        """The sample that the resampler gives next; before 0 it is thrown away."""
        self._expected: Fraction | None = None
        """Time of the output at which the next decoded frame begins if nothing is missing."""
        self._surplus = 0
        """Samples to throw away where the input's timestamps jump back."""
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
        """Decode what starts before `stop` seconds of the output."""
        for packet in self._track.packets_before(stop + self._origin):
            self._decode(packet)

    def flush(self) -> None:
        """Take what decoder and resampler hold back."""
        self._decode(None)
        self._flush_resampler()

    def take(self, first: int, stop: int) -> NDArray[np.float32]:
        """The samples (stop - first, channels), which are dropped; silence where none are kept."""
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
        """Resample a frame; put silence before it, or cut it, where its time is not the one expected."""
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
        # The timestamps have been used; in the resampler they would only make it guess about gaps.
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
        # One zero, seen as often as wanted: an hour of silence takes no memory.
        self._append(np.broadcast_to(np.float32(0), (max(0, samples), self._channels)))

    def _append_packed(self, frame: av.AudioFrame) -> None:
        self._append(np.asarray(frame.to_ndarray(), np.float32).reshape(-1, self._channels))

    def _append(self, samples: NDArray[np.float32]) -> None:
        """Queue samples (n, channels), but for surplus ones and those before time 0."""
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
    """The input's sample rate where the encoder has it, else 48 kHz."""
    rates = av.Codec(encoder, "w").audio_rates
    return 48000 if encoder == "libopus" or (rates is not None and rate not in rates) else rate
