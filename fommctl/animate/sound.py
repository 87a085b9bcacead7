"""Which sound goes with the result."""

from __future__ import annotations

from fommctl.animate.config import AnimateConfig
from fommctl.errors import UsageError
from fommctl.media.probe import VideoInfo
from fommctl.media.sound import choose_tracks
from fommctl.media.writer import AudioSource, holds_audio


def choose_sound(config: AnimateConfig, info: VideoInfo) -> tuple[tuple[AudioSource, ...], list[str]]:
    """The driving video's sound, cut to --start and --end, one source a track; and what should be said about it.

    `auto` is silent where there is no sound or no room for it; `driving` raises UsageError there, and InputError where
    none can be decoded.
    """
    if config.audio == "none":
        return (), []
    holds = holds_audio(config.result_path)
    if not info.audio or not holds:
        if config.audio == "driving":
            why = f"{config.driving.name} has no sound" if holds else f"{config.result_path.name} cannot hold sound"
            raise UsageError(f"--audio driving, but {why}", "Use --audio auto, or --audio none.")
        return (), []
    origin = info.origin + config.start_s
    end = None if config.end_s is None else info.origin + config.end_s
    return choose_tracks(info, origin, end, wanted=config.audio_track, must=config.audio == "driving")
