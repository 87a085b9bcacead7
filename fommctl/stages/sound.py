"""Which sound goes with the result."""

from __future__ import annotations

from fractions import Fraction

from fommctl.errors import UsageError
from fommctl.media.probe import AudioTrack, VideoInfo
from fommctl.media.writer import AudioSource, holds_audio
from fommctl.stages.options import AnimateConfig


def choose_sound(config: AnimateConfig, info: VideoInfo) -> AudioSource | None:
    """The driving video's default (else first) sound track, cut to --start and --end; None for silence.

    `auto` is silent where there is no sound or no room for it; `driving` raises UsageError there.
    """
    if config.audio == "none":
        return None
    holds = holds_audio(config.result_path)
    if not info.audio or not holds:
        if config.audio == "driving":
            why = f"{config.driving.name} has no sound" if holds else f"{config.result_path.name} cannot hold sound"
            raise UsageError(f"--audio driving, but {why}", "Use --audio auto, or --audio none.")
        return None
    track: AudioTrack = next((track for track in info.audio if track.default), info.audio[0])
    start = config.start or Fraction(0)
    end = None if config.end is None else info.origin + config.end
    return AudioSource(config.driving, track.index, info.origin + start, end)
