"""The clips of a training set: which there are, whom they show, and which of them are kept for testing."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.api.values import Split
from fommctl.config import did_you_mean
from fommctl.errors import InputError, UsageError
from fommctl.stages.splits import split_of

_log = logging.getLogger(__name__)

_VIDEOS = frozenset(
    {".mp4", ".mov", ".gif", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv"}
)
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"})
_STILLS = "stills"
"""A folder of this name holds pictures of their own, however they are named."""
_NUMBERED = re.compile(r"(.*?)\d+")
_MANIFESTS = ("manifest.jsonl", "index.csv")


@dataclass(frozen=True)
class Clip:
    """A video, an animation, a folder of frames or a picture of a training set."""

    path: Path
    name: str
    """Its path below the folder of its split, with `/` and its ending: unique in the split."""
    identity: str
    frames: int

    @property
    def still(self) -> bool:
        """Whether it is a single picture."""
        return self.frames == 1


@dataclass(frozen=True)
class _Entry:
    """What a manifest says about a file."""

    identity: str | None = None
    frames: int | None = None


def find_clips(root: Path, split: Split, *, test_fraction: float = 0.1, seed: int = 0) -> tuple[Clip, ...]:
    """The clips and stills of one split, in the order of their names.

    Where there are folders `train` and `test` below `root` (the published layout), they are the splits. Elsewhere all
    media below `root` are split by identity (see `split_of`): those that have a clip, and apart from them those of
    stills alone, so that the test split has its share of clips.

    The identity is what `manifest.jsonl` or `index.csv` in `root` say (`file` and `identity`; `frames` saves counting
    them), else in the published layout the folder directly below the split, else the name up to `#` or `__`, else the
    name without its ending. In the published layout, a folder that holds pictures and nothing else is a clip;
    elsewhere their names must differ in a number alone. A folder named `stills` never is one.

    Files that cannot be read are logged and left out. The test split may be empty. Raises InputError where there is
    nothing to read, and for a manifest that cannot be read or leads outside `root`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", "Name the folder that holds the training data.")
    entries = _manifest(root)
    published = (root / "train").is_dir() and (root / "test").is_dir()
    folder = root / split if published else root
    clips = tuple(_readable(root, folder, entries, published))
    if not clips and (split == "train" or not published):
        raise InputError(
            f"{folder} holds no clip that can be read", "Put videos, GIFs, pictures or folders of frames there."
        )
    if published:
        return clips
    moving = {clip.identity for clip in clips if not clip.still}
    still = {clip.identity for clip in clips} - moving
    test = split_of(moving, test_fraction, seed) | split_of(still, test_fraction, seed)
    return tuple(clip for clip in clips if (clip.identity in test) == (split == "test"))


def _readable(root: Path, folder: Path, entries: Mapping[Path, _Entry], published: bool) -> Iterator[Clip]:
    from fommctl.media.random_access import count_frames

    for path in _media(folder, published, frozenset({folder.resolve()})):
        entry = entries.get(path.relative_to(root), _Entry())
        name = path.relative_to(folder)
        try:
            frames = entry.frames or count_frames(path)
        except InputError as error:
            _log.warning("%s is left out: %s", name.as_posix(), error.message)
            continue
        yield Clip(path, name.as_posix(), entry.identity or _identity(name, published), frames)


def _identity(name: Path, published: bool) -> str:
    if published and len(name.parts) > 1:
        return name.parts[0]
    stem = name.stem if name.suffix.lower() in _VIDEOS | _PICTURES else name.name
    return re.split("#|__", stem, maxsplit=1)[0] or stem


def _media(folder: Path, published: bool, above: frozenset[Path]) -> Iterator[Path]:
    """Files and folders of frames below a folder, in the order of their names.

    above: the folders that led here, so that links do not lead round in circles.
    """
    for child in _children(folder):
        if not child.is_dir():
            if child.suffix.lower() in _VIDEOS | _PICTURES:
                yield child
        elif _is_frames(child, published):
            yield child
        elif (real := child.resolve()) not in above:
            yield from _media(child, published, above | {real})


def _children(folder: Path) -> list[Path]:
    try:
        found = [child for child in folder.iterdir() if not child.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", "Check its permissions.") from error
    return sorted(found, key=lambda child: child.name)


def _is_frames(folder: Path, published: bool) -> bool:
    """Whether a folder holds the pictures of one clip and nothing else that is seen."""
    children = _children(folder)
    pictures = [child for child in children if child.suffix.lower() in _PICTURES]
    others = any(child.suffix.lower() in _VIDEOS or child.is_dir() for child in children)
    if not pictures or others or folder.name == _STILLS:
        return False
    matches = [_NUMBERED.fullmatch(picture.stem) for picture in pictures]
    return published or (
        len(pictures) > 1 and len({match[1] if match else "" for match in matches}) == 1 and all(matches)
    )


def _manifest(root: Path) -> dict[Path, _Entry]:
    """By path below the root; the first manifest that is there counts."""
    path = next((root / name for name in _MANIFESTS if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: list[Any] = (
                list(csv.DictReader(file))
                if path.suffix == ".csv"
                else [json.loads(line) for line in file if line.strip()]
            )
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", "Make it again, or remove it.") from error
    return dict(_entry(path, row) for row in rows if isinstance(row, dict) and row.get("file"))


def _entry(manifest: Path, row: Mapping[str, Any]) -> tuple[Path, _Entry]:
    root = manifest.parent
    file = Path(os.path.normpath(str(row["file"])))
    if file.is_absolute() or ".." in file.parts or not (root / file).resolve().is_relative_to(root.resolve()):
        raise InputError(f"{manifest} names {row['file']}, which lies outside its folder", "Remove that line.")
    identity, frames = row.get("identity"), str(row.get("frames"))
    return file, _Entry(str(identity) if identity else None, int(frames) if frames.isdecimal() else None)


def read_pairs_list(path: Path, clips: Sequence[Clip]) -> tuple[tuple[Clip, Clip], ...]:
    """Pairs (source, driving) from a CSV file with these two columns, as published.

    A clip is named by its name, or by the last part of it. Raises InputError where the file cannot be read, and
    UsageError for a clip that is not there.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", "Name a CSV file with the columns source and driving."
        ) from error
    if not rows or not {"source", "driving"} <= rows[0].keys():
        raise InputError(f"{path.name} lists no pairs", "Its first line names the columns: source,driving.")
    known = {clip.name: clip for clip in clips}
    for clip in clips:
        known.setdefault(clip.name.rpartition("/")[2], clip)

    def named(name: str | None) -> Clip:
        if name not in known:
            near = did_you_mean(name or "", known)
            raise UsageError(f"{path.name} names the clip {name!r}, which is not there{near}", "Correct the line.")
        return known[name]

    return tuple((named(row["source"]), named(row["driving"])) for row in rows)
