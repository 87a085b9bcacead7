"""Sound decoded, brought to what the container holds, cut to the sample and encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fommctl.media.containers import Container
from fommctl.media.limits import LONGEST_PAUSE
from fommctl.media.sound_input import AudioSource, SoundInput

_CODECS = {"aac": "aac", "libopus": "opus", "flac": "flac"}
"""Encoder -> codec."""
_BITS_PER_SECOND = {"aac": 96000, "libopus": 64000}
"""For one channel: transparent for speech and nearly so for music."""
_STRAY = Fraction(1, 20)
"""Seconds by which timestamps may stray before silence is put in or sound is cut: rounded clocks stray by less."""
_BLOCK = 1 << 15


class TranscodedSound:
    """Decodes, resamples, trims to [0, end) and encodes. Samples are counted at the output's rate from time 0."""

    def __init__(
        self, track: SoundInput, output: Any, container: Container, source: AudioSource, warnings: list[str]
    ) -> None:
        encoder = str(container.sound_encoder)
        context = track.stream.codec_context
        self.codec = _CODECS[encoder]
        self._track = track
        self._source = source
        self._output = output
        self._warnings = warnings
        self._rate, self._layout = _settle(encoder, context.sample_rate, context.layout, warnings)
        self._resampler = self._new_resampler()
        self._stream = output.add_stream(encoder, rate=self._rate, layout=self._layout)
        if encoder in _BITS_PER_SECOND:
            self._stream.bit_rate = _BITS_PER_SECOND[encoder] * context.layout.nb_channels
        self._stream.codec_context.time_base = Fraction(1, self._rate)
        self._stream.metadata["language"] = track.language
        self._pending: list[NDArray[np.float32]] = []
        self._expected: Fraction | None = None
        """Time of the output at which the next decoded frame begins if nothing is missing."""
        self._position = 0
        """The sample that the resampler gives next; before 0 it is thrown away."""
        self._surplus = 0
        """Samples to throw away where the input's timestamps jump back."""
        self._sent = 0
        self._ended = False

    def pump(self, until: Fraction) -> None:
        """Encode the sound before `until` seconds of the output."""
        stop = self._source.until(until)
        for packet in self._track.packets_before(stop + self._source.origin):
            self._decode(packet)
        self._send(int(stop * self._rate))

    def finish(self, end: Fraction) -> None:
        """Flush decoder, resampler and encoder, none of it beyond `end` seconds of the output."""
        self._decode(None)
        self._flush_resampler()
        self._send(int(self._source.until(end) * self._rate))
        self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        """Release the input."""
        self._track.close()

    def _new_resampler(self) -> av.AudioResampler:
        return av.AudioResampler("fltp", self._layout, self._rate)

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
            time = frame.pts * frame.time_base - self._source.origin
        if self._expected is None:
            self._expected = time or Fraction(0)
            self._position = round(self._expected * self._rate)
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
        try:
            parts = self._resampler.resample(frame)
        except ValueError:
            # The input changes its rate or layout on the way.
            self._flush_resampler()
            parts = self._resampler.resample(frame)
        for part in parts:
            self._append(part.to_ndarray())

    def _flush_resampler(self) -> None:
        for part in self._resampler.resample(None):
            if part is not None:
                self._append(part.to_ndarray())
        self._resampler = self._new_resampler()

    def _jump(self, samples: int) -> None:
        self._surplus += max(0, -samples)
        silence = np.zeros((self._channels, _BLOCK), np.float32)
        for first in range(0, samples, _BLOCK):
            self._append(silence[:, : samples - first])
            self._send(self._position)

    @property
    def _channels(self) -> int:
        return int(av.AudioLayout(self._layout).nb_channels)

    def _append(self, samples: NDArray[Any]) -> None:
        """Queue samples (channels, n) float32, but for surplus ones and those before time 0."""
        cut = min(self._surplus, samples.shape[1])
        self._surplus -= cut
        samples = samples[:, cut:]
        early = min(max(0, -self._position), samples.shape[1])
        self._position += early
        samples = samples[:, early:]
        if samples.shape[1]:
            if not self._pending:
                self._sent = self._position
            self._pending.append(samples)
            self._position += samples.shape[1]

    def _send(self, stop: int) -> None:
        """Encode the queued samples before the sample `stop`."""
        if not self._pending or stop <= self._sent:
            return
        queued = np.concatenate(self._pending, axis=1)
        ready, rest = queued[:, : stop - self._sent], queued[:, stop - self._sent :]
        self._pending = [rest] if rest.shape[1] else []
        for block in _blocks(ready):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", self._layout)
            frame.sample_rate = self._rate
            frame.pts = self._sent
            frame.time_base = Fraction(1, self._rate)
            self._sent += block.shape[1]
            self._output.mux(self._stream.encode(frame))


def _blocks(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for first in range(0, samples.shape[1], _BLOCK):
        yield samples[:, first : first + _BLOCK]


def _settle(encoder: str, rate: int, layout: av.AudioLayout, warnings: list[str]) -> tuple[int, str]:
    """Sample rate and channel layout of the output: the input's where the encoder has them."""
    rates = av.Codec(encoder, "w").audio_rates
    if rates is not None and rate not in rates:
        rate = 48000
    if encoder == "libopus":
        rate = 48000
    for name in (layout.name, *_usual_layout(layout.nb_channels)):
        if _opens(encoder, rate, name):
            return rate, name
    warnings.append(f"the sound was mixed down from {layout.name} to stereo")
    return rate, "stereo"


def _usual_layout(channels: int) -> tuple[str, ...]:
    """The layout meant by so many channels that have no names."""
    names = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
    return (names[channels],) if channels in names else ()


def _opens(encoder: str, rate: int, layout: str) -> bool:
    context: Any = av.CodecContext.create(encoder, "w")
    try:
        context.sample_rate, context.layout = rate, layout
        context.format = av.Codec(encoder, "w").audio_formats[0]  # type: ignore[index]
        context.time_base = Fraction(1, rate)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
