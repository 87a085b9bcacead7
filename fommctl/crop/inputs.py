"""The files that `crop` works on, and the names of their clips."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fommctl.api.folders import media_below
from fommctl.files import comparable_name, safe_file_name
from fommctl.media import sequences
from fommctl.media.sequences import FRAME_SUFFIXES, VIDEO_SUFFIXES

_LONGEST = 150
"""Bytes of a name; the number of the track, the suffix and a temporary name's additions come on top."""
_CLIP = re.compile(r"#track\d+\.(mp4|png)$")


def expand(inputs: Sequence[str], output: Path | None) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find the files that files, folders (with all below them) and patterns stand for, each once, in a fixed order.

    output: what is called as a clip (NAME#track0.mp4) there was made by an earlier run and is left out.
    Also returns the inputs that mean no file, each with the reason. Raises InputError for a folder that cannot be read.
    """
    files: dict[str, Path] = {}
    missing: list[tuple[Path, str]] = []
    clips: list[tuple[Path, str]] = []
    for text in inputs:
        found, reason = _meant(text)
        if not found:
            missing.append((Path(text), reason))
        for path in found:
            if output is not None and _is_clip(path, output):
                clips.append((path, "is a clip of an earlier run"))
            else:
                files.setdefault(os.path.realpath(path), path)
    return list(files.values()), missing if files else [*missing, *clips]


def _is_clip(path: Path, output: Path) -> bool:
    """Return whether an earlier run has made this clip: a second `crop *.mp4 -o .` is not for its clips."""
    return _CLIP.search(path.name) is not None and os.path.realpath(path.parent) == os.path.realpath(output)


def _meant(text: str) -> tuple[list[Path], str]:
    path = Path(text)
    if path.is_dir():
        return _in_folder(path), "contains no videos or pictures"
    if path.exists() or path.is_symlink():
        return [path], ""
    if sequences.is_sequence(path):
        return [path], ""
    if glob.has_magic(text):
        matching = (Path(match) for match in glob.glob(text, recursive=True))
        files = [file for match in matching for file in (_in_folder(match) if match.is_dir() else [match])]
        return sorted(files), "matches no file"
    return [], "does not exist"


def _in_folder(folder: Path) -> list[Path]:
    return list(media_below(folder, suffixes=VIDEO_SUFFIXES | FRAME_SUFFIXES, frame_folders=False))


def key_of(path: Path) -> str:
    """Return the key of a source, which no other has."""
    return os.path.abspath(path)


def names_of(files: Sequence[Path], known: Mapping[str, str], present: Sequence[str]) -> dict[Path, str]:
    """Return a unique name for each source: the part before `#` of its clips.

    It is the file's own, without its suffix and with `_` for what a file system or the training layout reserves.
    Where several sources, or a file that is not a clip of ours, have that name, a number made from the path follows it.
    known: names given in earlier runs, by `key_of`.  present: names of the files in the output folder.
    """
    wanted = {path: safe_name(path.stem) for path in files}
    counts = Counter(comparable_name(name) for name in wanted.values())
    keys = {key_of(path) for path in files}
    taken = {comparable_name(name) for name in known.values()}
    taken |= {comparable_name(name) for key, name in known.items() if key not in keys}
    strangers = {comparable_name(name.partition("#")[0]) for name in present} - {
        comparable_name(name) for name in known.values()
    }
    names = {}
    for path, name in wanted.items():
        if key_of(path) in known:
            names[path] = known[key_of(path)]
        elif counts[comparable_name(name)] > 1 or comparable_name(name) in taken | strangers:
            digest = hashlib.sha256(os.fsencode(key_of(path))).hexdigest()[:8]
            names[path] = f"{name}-{digest}"
        else:
            names[path] = name
    return names


def safe_name(stem: str) -> str:
    """Return a stem as part of a file name on every system: no separators, no `#`, no leading or trailing dots."""
    return safe_file_name(stem, forbidden="#%", longest=_LONGEST, empty="clip")


def stamp(path: Path) -> list[int]:
    """Return [bytes, nanoseconds of the last change] of a file, or of all files of a pattern of frames.

    Raises InputError where a pattern means nothing, and OSError.
    """
    files = [file for _, file in sequences.listed(path)] if sequences.is_sequence(path) else [path]
    states = [file.stat() for file in files]
    return [sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)]
