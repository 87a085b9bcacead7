"""Finds clips in plain folders without a particular layout, for data set adapters and training.

Clips are everything that the published loader reads (first-order-model, frames_dataset.py), and more: videos, GIFs,
folders of numbered frames, and single pictures, which are stills or strips of frames side by side.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any, cast

from fommctl.api.protocols import ClipRecord, Split
from fommctl.api.readers import bounded_lines, parse_json, read_table
from fommctl.errors import InputError
from fommctl.media import sequences

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = sequences.VIDEO_SUFFIXES
PICTURE_SUFFIXES = sequences.PICTURE_SUFFIXES
MEDIA_SUFFIXES = sequences.MEDIA_SUFFIXES
SPLITS: tuple[Split, ...] = ("train", "test")
IDENTITY_ENDS = ("#", "__")
"""Marks that end the identity in a clip's name: the published `#`, and `__` as in `IDENTITY__clip.mp4`."""
STILLS = "stills"
"""Name of folders whose numbered pictures are separate clips, not the frames of one."""
_NUMBERED = re.compile(r"(.*?)\d+")
_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")
HINT = "Put videos, GIFs, pictures or folders of numbered frames there."


def plain_folder(
    root: Path,
    *,
    suffixes: Collection[str] = MEDIA_SUFFIXES,
    frame_folders: bool = True,
    identity_ends: Sequence[str] = IDENTITY_ENDS,
    hint: str = HINT,
) -> Iterator[ClipRecord]:
    """Yield a record without a box for each clip below `root`, in order of path; hidden files and folders are skipped.

    If `root` has folders `train` and `test` (the published layout), those are the splits, and nothing else is read.
    The identity is taken from the manifest (see `read_manifest`), else in the published layout from the file's folder
    below the split, else from its name up to the first of `identity_ends`, else from the name without its suffix. An
    identity in both splits is kept in train, with a warning.

    suffixes: suffixes of files that are clips.  frame_folders: whether folders of frames are clips (see `media_below`).
    identity_ends: `("#",)` for data whose names use `__` for something else.  hint: shown if there are no clips.
    Raises InputError if there are no clips, or a folder or the manifest cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", hint)
    records = _Records(root, read_manifest(root), identity_ends)
    published = is_published(root)
    for split in SPLITS if published else (None,):
        folder = root / split if split else root
        for path in media_below(folder, suffixes=suffixes, frame_folders=frame_folders, published=published):
            yield records.record(path, split)
    if not records.names:
        raise InputError(f"{root} contains no clips", hint)


def is_published(root: Path) -> bool:
    """Return whether the folders `train` and `test` below `root` are the splits."""
    return all((root / split).is_dir() for split in SPLITS)


def media_below(
    folder: Path,
    *,
    suffixes: Collection[str] = MEDIA_SUFFIXES,
    frame_folders: bool = True,
    published: bool = False,
) -> Iterator[Path]:
    """Yield files with one of these suffixes, and folders of frames, below a folder, in order of path.

    A folder of frames contains at least two pictures whose names differ only in their numbers, and no videos or
    folders; in the published layout, any number of pictures with any names. A folder called `stills` is never one.
    Hidden files are skipped; links to folders are followed, each folder once. Other skipped files are counted in a
    warning, except tables and notes.

    published: whether `folder` is a split of the published layout.
    """
    frames_in = (_holds_frames if published else _holds_numbered_frames) if frame_folders else None
    others: list[str] = []
    yield from _below(folder, suffixes, frames_in, {folder.resolve()}, others)
    if skipped := sequences.passed_over(others):
        _log.warning("%s: %s", folder, skipped)


def _below(
    folder: Path,
    suffixes: Collection[str],
    frames_in: Callable[[Path], bool] | None,
    seen: set[Path],
    others: list[str],
) -> Iterator[Path]:
    """Yield files and folders of frames below a folder.

    others: receives the names of skipped files.
    """
    for child in _children(folder):
        if child.is_dir():
            if child.resolve() in seen:
                continue
            seen.add(child.resolve())
            if frames_in and frames_in(child):
                yield child
            else:
                yield from _below(child, suffixes, frames_in, seen, others)
        elif child.suffix.lower() in suffixes:
            yield child
        else:
            others.append(child.name)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted((child for child in folder.iterdir() if not child.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", "Check its permissions.") from error


def _holds_frames(folder: Path) -> bool:
    return bool(_frames(folder))


def _holds_numbered_frames(folder: Path) -> bool:
    pictures = _frames(folder)
    starts = {match[1] if (match := _NUMBERED.fullmatch(picture.stem)) else None for picture in pictures}
    return len(pictures) > 1 and len(starts) == 1 and None not in starts


def _frames(folder: Path) -> list[Path]:
    """Return the pictures in a folder; none if it is called `stills`, or holds a video or folder."""
    children = _children(folder)
    others = any(child.is_dir() or child.suffix.lower() in VIDEO_SUFFIXES for child in children)
    if others or folder.name.lower() == STILLS:
        return []
    return [child for child in children if child.suffix.lower() in PICTURE_SUFFIXES]


def stem(path: Path) -> str:
    """Return the name of a clip without its suffix; folders of frames keep their whole name."""
    return path.stem if path.suffix.lower() in MEDIA_SUFFIXES else path.name


def identity_in(name: str, ends: Sequence[str] = IDENTITY_ENDS) -> str | None:
    """Return the part of a clip's name before the first of `ends`; None if it has none of them or begins with one."""
    first = re.split("|".join(map(re.escape, ends)), name, maxsplit=1)[0] if ends else ""
    return first if first and first != name else None


def identity_of(inner: Path, *, published: bool, ends: Sequence[str] = IDENTITY_ENDS) -> str | None:
    """Return the identity that a clip's path contains, or None.

    inner: the path relative to the folder of the split (`published`), or to the folder of all clips.
    """
    return inner.parts[0] if published and len(inner.parts) > 1 else identity_in(stem(inner), ends)


def file_name_part(text: str, *, identity: bool = False) -> str:
    """Return `text` with `_` in place of characters that file names cannot have (slashes, control characters) and, for
    an identity, of `#`."""
    return _NO_NAME.sub("_", text.replace("#", "_") if identity else text)


class _Records:
    """Makes records whose names are unique within an identity, with each identity in only one split."""

    def __init__(self, root: Path, manifest: Mapping[str, Mapping[str, Any]], identity_ends: Sequence[str]) -> None:
        self.root = root
        self.manifest = manifest
        self.identity_ends = identity_ends
        self.names: set[tuple[str, str]] = set()
        self.splits: dict[str, Split] = {}

    def record(self, path: Path, split: Split | None) -> ClipRecord:
        name, inner = stem(path), path.relative_to(self.root / split if split else self.root)
        row = self.manifest.get(path.relative_to(self.root).as_posix(), {})
        known = str(row.get("identity") or "")
        known = known or identity_of(inner, published=split is not None, ends=self.identity_ends) or ""
        identity = file_name_part(known or name, identity=True)
        if split and self.splits.setdefault(identity, split) != split:
            if known:
                _log.warning("%s is in both splits and is kept in %s: %s", identity, self.splits[identity], path)
                split = self.splits[identity]
            else:
                # Files with the same number in two folders are unrelated.
                identity = f"{split}-{identity}"
        rest = name.removeprefix(known).lstrip("#_") or name
        numbered = (f"{rest}-{number}" for number in count(2))
        wanted = chain((rest, "-".join((*inner.parent.parts, rest))), numbered)
        unused = next(each for each in map(file_name_part, wanted) if (identity, each.casefold()) not in self.names)
        self.names.add((identity, unused.casefold()))
        return ClipRecord(name=unused, identity=identity, split=split, path=path)


def read_manifest(root: Path) -> dict[str, Mapping[str, Any]]:
    """Return the entries of `manifest.jsonl`, or else of `index.csv`, in `root`; empty if there is neither.

    Keys are paths of files relative to `root`, with `/`; entries have `file`, `identity` and more. Raises InputError
    if the manifest cannot be read or names a file outside `root`.
    """
    lines, table = root / "manifest.jsonl", root / "index.csv"
    if lines.is_file():
        rows: list[Mapping[str, Any]] = list(_json_lines(lines))
    elif table.is_file():
        rows = [row.cells for row in read_table(table, ("file", "identity"))]
    else:
        return {}
    manifest = lines if lines.is_file() else table
    return {_within(manifest, str(row["file"])): row for row in rows}


def _within(manifest: Path, file: str) -> str:
    path = normpath(file.replace("\\", "/"))
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InputError(f"{manifest} names {file}, which is outside its folder", "Remove that line.")
    return path


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a manifest that name a file. Raises InputError if a line is not a JSON object."""
    try:
        # Only a line feed ends a line: text may contain other line separators.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(bounded_lines(file, path), 1):
                row = _json_line(line)
                if not isinstance(row, dict):
                    hint = "Correct the line, or move the file away."
                    raise InputError(f"{path}, line {number}: not a JSON object", hint)
                if "file" in row:
                    yield cast(Mapping[str, Any], row)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Make it again, or move it away.") from error


def _json_line(line: str) -> Any:
    """Parse one line; return an empty object for an empty line, and None for invalid JSON."""
    try:
        return parse_json(line, finite=False) if line.strip() else {}
    except ValueError:
        return None
