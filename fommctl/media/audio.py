"""Sound for a video: copied packet by packet where the container holds the codec, transcoded where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any, Protocol

import av

from fommctl.media.containers import Container
from fommctl.media.sound_input import AudioSource, SoundInput, open_input
from fommctl.media.transcoding import TranscodedSound

__all__ = ["AudioSource", "CopiedSound", "Sound", "open_sound"]


class Sound(Protocol):
    """A sound track that is written as the video advances."""

    codec: str
    """What is in the file, such as `aac`."""

    def pump(self, until: Fraction) -> None:
        """Write the sound up to `until` seconds of the output."""

    def finish(self, end: Fraction) -> None:
        """Write what is still held back, none of it beyond `end` seconds of the output."""

    def close(self) -> None:
        """Release the input."""


def open_sound(
    source: AudioSource, output: Any, container: Container, warnings: list[str], *, copy: bool = True
) -> Sound | None:
    """Add the track to `output` (a PyAV container that is not started) and return its writer.

    copy: take packets as they are where the container holds their codec.
    None, with a reason in `warnings`, where the sound cannot be read.
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
        # Left and right of a camera stay as they are where the container holds them.
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
    """Whether the container takes packets of this sound codec as they are."""
    if container.sound is not None:
        return track.codec in container.sound
    # PyAV lists the names of encoders and decoders, which may differ from the codec's (`dca` decodes dts).
    return not {track.codec, track.stream.codec_context.name}.isdisjoint(output.supported_codecs)


class CopiedSound:
    """Packets as they are, their times shifted by a constant."""

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
        """Write the packets that start before `until` seconds of the output, but for the last."""
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
        """Whether the packet is heard after time 0, or primes the decoder for one that is.

        MP4 hides what comes before 0 by an edit list, so that one packet for priming is kept. Matroska has no time
        before 0 (it would move the video instead) but for the pre-skip of Opus.
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
