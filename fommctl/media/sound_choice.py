"""Which sound tracks of a file go with a result, and which of them belong together.

Cameras write left and right as two mono tracks; telephones write a second track that few programs can decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av

from fommctl.errors import InputError, UsageError
from fommctl.media.probe import AudioTrack, VideoInfo
from fommctl.media.sound_input import AudioSource, open_input

AUTO, ALL = "auto", "all"
_TRIED = 200
"""Packets without any sound, after which a track counts as one that cannot be decoded."""

Group = tuple[AudioTrack, ...]
"""A track, or two mono ones that are left and right."""


def choose_tracks(
    info: VideoInfo, origin: Fraction, end: Fraction | None = None, *, wanted: str = AUTO, must: bool = False
) -> tuple[tuple[AudioSource, ...], list[str]]:
    """The sound of a result, one source a track of it, and what should be said about the choice.

    origin, end: seconds on the file's own clock (see AudioSource).
    wanted: `auto` takes the default track, or the pair of mono tracks that it is one of, or the first other that can be
    decoded; `all` takes every one; a number, from 1, takes that track alone.
    must: sound is asked for. Raises InputError where it is and none can be decoded, and UsageError for a number that
    the file does not have.
    """
    groups = _groups(info.audio)
    if wanted not in (AUTO, ALL):
        if int(wanted) > len(info.audio):
            raise UsageError(f"{info.path.name} has {len(info.audio)} sound tracks, and no number {wanted}")
        groups = [(info.audio[int(wanted) - 1],)]
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
    """Neighbouring mono tracks of one kind in pairs, every other by itself, in the file's order."""
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
    """Whether any sound comes of the track; a file that has none from `origin` on is no fault of its codec."""
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
