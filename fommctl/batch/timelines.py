"""Reading timelines, OpenTimelineIO (.otio) and edit decision lists (.edl), as jobs, one per clip.

A clip's media is the driving video; its range becomes --start and --end. Anything else comes from the metadata
`fommctl` of the clip or the timeline, and from the command line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from fommctl.batch.job_files import JobFile, JobRow, Problem
from fommctl.errors import FommctlError, InputError, MissingError, UsageError, first_line
from fommctl.files import safe_file_name
from fommctl.media import timecode
from fommctl.media.marking import printable
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.sequences import MEDIA_SUFFIXES, VIDEO_SUFFIXES

OURS = "fommctl"
"""Key of our fields in the metadata of a timeline and its clips."""
OUTPUT = "{source.stem}--{clip}.mov"
"""A movie that keeps the timecode."""
_LOOKED = "It is looked for where the timeline says, then beside the timeline by that name, the clip's and the reel's."


def read_timeline(path: Path, handles: int = 0) -> JobFile:
    """Read the clips of all video tracks, track by track, without disabled ones.

    handles: frames to add before and after the range of each clip, as far as the media goes. Raises UsageError if the
    file is not a timeline, InputError if it cannot be read, MissingError without OpenTimelineIO.
    """
    timeline = _read(path)
    entries, problems, names = [], [], Counter[str]()
    for number, clip in enumerate(_clips(timeline), 1):
        where = f"clip {number}"
        stem = _name_of(clip)
        names[stem] += 1
        try:
            media = _media_of(clip, path.parent)
            info = probe(media, fps=_rate_of(clip) if "%" in media.name else None)
            reel = _reel_of(clip)
            said = {} if reel is None else {"reel": reel}
            fields = {"driving": str(media), **said, **_range_of(clip, info, handles), **_fields_of(clip.metadata)}
        except FommctlError as error:
            problems.append(Problem.of(where, error))
            continue
        # Clips with the same name are numbered.
        unique = stem if names[stem] == 1 else f"{stem}_{names[stem]}"
        entries.append(JobRow(where, fields, {"clip": unique, "reel": reel or "none"}))
    if not names:
        raise UsageError(f"{path.name} contains no clips", "Its video tracks are empty, or all clips are disabled.")
    return JobFile(entries, _fields_of(timeline.metadata), problems, output=OUTPUT)


def _read(path: Path) -> Any:
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise MissingError("timelines need OpenTimelineIO", "pip install 'fommctl[otio]'") from error
    if path.suffix.lower() == ".edl" and "cmx_3600" not in otio.adapters.available_adapter_names():
        raise MissingError("edit decision lists need the package otio-cmx3600-adapter", "pip install 'fommctl[otio]'")

    def read(**more: Any) -> Any:
        found = otio.adapters.read_from_file(
            str(path), media_linker_name=otio.media_linker.MediaLinkingPolicy.DoNotLinkMedia, **more
        )
        if not isinstance(found, otio.schema.Timeline):
            raise UsageError(f"{path.name} is not a timeline but {type(found).__name__}", "Export one timeline.")
        return found

    try:
        if path.suffix.lower() != ".edl":
            return read()
        # An edit decision list does not state its rate: it is the media's.
        return read(rate=_rate_of_media(read(rate=30, ignore_timecode_mismatch=True), path.parent))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}", "Check the path."
        ) from error
    except (otio.exceptions.OTIOError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = printable(first_line(error))
        raise UsageError(f"{path.name} is not a timeline: {why}", "Export it again, or write a job file.") from error


def _rate_of_media(timeline: Any, folder: Path) -> float:
    for clip in _clips(timeline):
        try:
            return float(probe(_media_of(clip, folder)).coded_rate)
        except InputError:
            continue
    return 25.0


def _clips(timeline: Any) -> Iterator[Any]:
    for track in timeline.video_tracks():
        yield from (clip for clip in track.find_clips() if clip.enabled)


def _name_of(clip: Any) -> str:
    name = PureWindowsPath(clip.name or _reel_of(clip) or "clip").name
    stem, dot, suffix = name.rpartition(".")
    return safe_file_name(stem if f"{dot}{suffix}".lower() in MEDIA_SUFFIXES else name)


def _reel_of(clip: Any) -> str | None:
    for metadata in (clip.metadata, clip.media_reference.metadata if clip.media_reference else {}):
        for part in metadata.values():
            reel = part.get("reel") if hasattr(part, "get") else None
            if isinstance(reel, str) and reel.strip():
                return reel.strip()
    return None


def _fields_of(metadata: Any) -> dict[str, Any]:
    fields = metadata.get(OURS, {})
    if not hasattr(fields, "items"):
        return {}
    return {name: list(value) if type(value).__name__ == "AnyVector" else value for name, value in fields.items()}


def _media_of(clip: Any, folder: Path) -> Path:
    """Return the file or the pattern of pictures of a clip's media. Raises InputError."""
    reference = clip.media_reference
    base = getattr(reference, "target_url_base", None)
    if base is not None:
        number = f"%0{max(1, reference.frame_zero_padding)}d"
        return folder / _local(base) / f"{reference.name_prefix}{number}{reference.name_suffix}"
    named = _local(getattr(reference, "target_url", None) or "")
    places = [folder / named, folder / PureWindowsPath(named).name] if named else []
    for name in (clip.name, _reel_of(clip)):
        if name:
            name = PureWindowsPath(name).name
            places += [folder / name, *(folder / f"{name}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"the media of '{printable(named or clip.name or '?')}' is not found", _LOOKED)
    return found


def _local(url: str) -> str:
    """Convert a URL such as file:///shots/a.mov to a path; text without a scheme is a path."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else url


def _rate_of(clip: Any) -> Fraction:
    """Return the frame rate in which the range of a clip counts."""
    return _exact(clip.trimmed_range().start_time.rate)


def _exact(rate: float) -> Fraction:
    whole = round(rate)
    ntsc = Fraction(whole * 1000, 1001)
    return ntsc if abs(rate - ntsc) < abs(rate - whole) else Fraction(rate).limit_denominator(1001)


def _range_of(clip: Any, info: VideoInfo, handles: int) -> dict[str, str]:
    """Return `start` and `end` of a clip in its media, as frames from the media's beginning. Raises UsageError."""
    if any(getattr(effect, "time_scalar", 1.0) != 1.0 for effect in clip.effects):
        raise UsageError(f"the clip '{printable(clip.name)}' is retimed", "Clips are animated at their own speed.")
    shown = clip.visible_range()  # with what transitions show
    beginning = _beginning(clip, info)
    first = _frames(shown.start_time, info) - beginning
    if first < 0:
        begins = f"{info.path.name} starts at {info.timecode}" if info.timecode else "Its range is negative."
        raise UsageError(f"the clip '{printable(clip.name)}' begins before its media", begins)
    end = first + _frames(shown.duration, info) + handles
    fields = {"start": _moment(max(0, first - handles), info), "end": _moment(end, info)}
    if info.kind == "sequence":
        fields["fps"] = str(info.rate)
    if info.timecode is None and beginning:
        fields["driving_timecode"] = _moment(beginning, info)
    return fields


def _beginning(clip: Any, info: VideoInfo) -> int:
    """Return the number of the media's first frame in the clip's counting: from the timeline, else from the file's
    timecode."""
    available = clip.media_reference.available_range if clip.media_reference else None
    if available is not None:
        return _frames(available.start_time, info)
    if info.timecode is None:
        return 0
    try:
        return timecode.frame_number(info.timecode, info.coded_rate)
    except ValueError:
        return 0


def _frames(time: Any, info: VideoInfo) -> int:
    """Convert a time of a timeline to frames of the media."""
    rate = _exact(time.rate)
    return round(Fraction(time.value) * info.coded_rate / rate)


def _moment(frames: int, info: VideoInfo) -> str:
    text = timecode.shifted("00:00:00:00", frames, info.coded_rate)
    assert text is not None
    return text
