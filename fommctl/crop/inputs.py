"""Finds the files that `crop` works on, and names their clips."""

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
"""Most bytes of a name, to which the track's number, the suffix and additions for temporary files are added."""
_CLIP = re.compile(r"#track\d+\.(mp4|png)$")


def expand(inputs: Sequence[str], output: Path | None) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the files of all inputs (files, folders with their subfolders, patterns), each once, in a fixed order; and
    the inputs without any file, each with the reason.

    output: the output folder; files in it that are named as clips (NAME#track0.mp4) are from an earlier run and are
    skipped.  Raises InputError for a folder that cannot be read.
    """
    files: dict[str, Path] = {}
    missing: list[tuple[Path, str]] = []
    clips: list[tuple[Path, str]] = []
    for text in inputs:
        found, reason = _matching(text)
        if not found:
            missing.append((Path(text), reason))
        for path in found:
            if output is not None and _is_clip(path, output):
                clips.append((path, "is a clip of an earlier run"))
            else:
                files.setdefault(os.path.realpath(path), path)
    return list(files.values()), missing if files else [*missing, *clips]


def _is_clip(path: Path, output: Path) -> bool:
    """Return whether this is a clip of an earlier run, as a second `crop *.mp4 -o .` would find them."""
    return _CLIP.search(path.name) is not None and os.path.realpath(path.parent) == os.path.realpath(output)


def _matching(text: str) -> tuple[list[Path], str]:
    """Return the files of one input, and the reason if there are none."""
    path = Path(text)
    if path.is_dir():
        return _in_folder(path), "contains no videos or pictures"
    if path.exists() or path.is_symlink():
        return [path], ""
    if sequences.is_sequence(path):
        return [path], ""
    if glob.has_magic(text):
        matches = (Path(match) for match in glob.glob(text, recursive=True))
        files = [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
        return sorted(files), "matches no file"
    return [], "does not exist"


def _in_folder(folder: Path) -> list[Path]:
    return list(media_below(folder, suffixes=VIDEO_SUFFIXES | FRAME_SUFFIXES, frame_folders=False))


def key_of(path: Path) -> str:
    """Return a unique key for a source: its absolute path."""
    return os.path.abspath(path)


def names_of(files: Sequence[Path], known: Mapping[str, str], present: Sequence[str]) -> dict[Path, str]:
    """Return a unique name for each source, which its clips have before `#`.

    The name is the file's (see `safe_name`), followed by a hash of the path if other sources, or files in the output
    folder that are not clips, have the same one.
    known: names from earlier runs, by `key_of`.  present: names of the files in the output folder.
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
    """Return a name that is valid on every file system, without `#` and `%`, by replacing characters in `stem`."""
    return safe_file_name(stem, forbidden="#%", longest=_LONGEST, empty="clip")


def stamp(path: Path) -> list[int]:
    """Return [size in bytes, last modification in nanoseconds] of a file, or over all frames of a pattern.

    Raises InputError if a pattern matches no file, and OSError.
    """
    files = [file for _, file in sequences.listed(path)] if sequences.is_sequence(path) else [path]
    states = [file.stat() for file in files]
    return [sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)]
