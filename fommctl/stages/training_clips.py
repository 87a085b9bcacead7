"""The clips of a training set: which there are, whom they show, and which of them are kept for testing."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.api.values import Split
from fommctl.config import did_you_mean
from fommctl.errors import InputError, UsageError

_log = logging.getLogger("fommctl.training")

_VIDEOS = frozenset(
    {".mp4", ".mov", ".gif", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv"}
)
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"})
_NUMBERED = re.compile(r"(.*?)\d+")


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

    identity: str | None
    frames: int | None


def find_clips(root: Path, split: Split, *, test_fraction: float = 0.1, seed: int = 0) -> tuple[Clip, ...]:
    """The clips and stills of one split, in the order of their names.

    With folders `train` and `test` below `root` (the published layout), those are the splits. Elsewhere all media
    below `root` are split by identity: identities are put in the order of the SHA-256 of `seed:identity`, and the
    first `test_fraction` of them, rounded up, are for testing; those that have a clip and those of stills alone are
    split apart. One identity alone is for training.

    The identity is what `manifest.jsonl` or `index.csv` in `root` says (`file`, `identity`, and `frames` which saves
    counting), else the first folder in the published layout, else the name up to `#` or `__`, else the name without
    its ending.
    Files that cannot be read are logged and left out. Raises InputError where none is left, and for manifests that
    lead outside `root`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", "Name the folder that holds the training data.")
    entries = _manifest(root)
    published = (root / "train").is_dir() and (root / "test").is_dir()
    folder = root / split if published else root
    clips = tuple(_readable(folder, _media(folder, published), entries, root, published))
    if not clips:
        raise InputError(
            f"{folder} holds no clip that can be read", "Put videos, GIFs, pictures or folders of frames there."
        )
    if published:
        return clips
    chosen = _test_identities(clips, test_fraction, seed)
    return tuple(clip for clip in clips if (clip.identity in chosen) == (split == "test"))


def _test_identities(clips: Sequence[Clip], fraction: float, seed: int) -> set[str]:
    moving = {clip.identity for clip in clips if not clip.still}
    chosen: set[str] = set()
    for group in (moving, {clip.identity for clip in clips} - moving):
        ordered = sorted(group, key=lambda identity: hashlib.sha256(f"{seed}:{identity}".encode()).hexdigest())
        chosen.update(ordered[: min(math.ceil(fraction * len(ordered)), len(ordered) - 1)])
    return chosen


def _readable(
    folder: Path, found: Iterable[Path], entries: Mapping[Path, _Entry], root: Path, published: bool
) -> Iterator[Clip]:
    from fommctl.media.random_access import count_frames

    for path in found:
        entry = entries.get(path.relative_to(root), _Entry(None, None))
        name = path.relative_to(folder).as_posix()
        try:
            frames = entry.frames or count_frames(path)
        except InputError as error:
            _log.warning("%s is left out: %s", name, error.message)
            continue
        yield Clip(path, name, entry.identity or _identity(Path(name), published), frames)


def _identity(name: Path, published: bool) -> str:
    if published and len(name.parts) > 1:
        return name.parts[0]
    stem = name.name if name.suffix.lower() not in _VIDEOS | _PICTURES else name.stem
    return re.split("#|__", stem, maxsplit=1)[0] or stem


def _media(folder: Path, published: bool) -> Iterator[Path]:
    """Files and folders of frames below a folder, in order of their names."""
    children = sorted((child for child in folder.iterdir() if not child.name.startswith(".")), key=lambda one: one.name)
    for child in children:
        if child.is_dir():
            if _is_frames(child, published):
                yield child
            else:
                yield from _media(child, published)
        elif child.suffix.lower() in _VIDEOS | _PICTURES:
            yield child


def _is_frames(folder: Path, published: bool) -> bool:
    """Whether a folder holds the numbered pictures of one clip, and nothing else that moves."""
    children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    pictures = [child for child in children if child.suffix.lower() in _PICTURES]
    if (
        not pictures
        or folder.name == "stills"
        or any(child.is_dir() or child.suffix.lower() in _VIDEOS for child in children)
    ):
        return False
    if published:
        return True
    starts = {match[1] if (match := _NUMBERED.fullmatch(picture.stem)) else None for picture in pictures}
    return len(pictures) > 1 and len(starts) == 1 and None not in starts


def _manifest(root: Path) -> dict[Path, _Entry]:
    jsonl, table = root / "manifest.jsonl", root / "index.csv"
    rows: list[Mapping[str, Any]] = []
    try:
        if jsonl.is_file():
            rows = [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif table.is_file():
            with table.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"the manifest in {root} cannot be read: {error}", "Make it again, or remove it.") from error
    return dict(_entry(root, row) for row in rows if row.get("file"))


def _entry(root: Path, row: Mapping[str, Any]) -> tuple[Path, _Entry]:
    file = Path(os.path.normpath(str(row["file"])))
    if file.is_absolute() or ".." in file.parts or not (root / file).resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"the manifest in {root} names {row['file']}, which lies outside that folder", "Remove the line."
        )
    frames = str(row.get("frames") or "")
    return file, _Entry(row.get("identity") or None, int(frames) if frames.isdigit() and int(frames) else None)


def read_pairs_list(path: Path, clips: Sequence[Clip]) -> tuple[tuple[Clip, Clip], ...]:
    """Pairs (source, driving) from a CSV file with these two columns, as published.

    A clip is named by its name, or by the last part of it where that is unique. Raises InputError where the file
    cannot be read, and UsageError for a clip that is not there.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", "Name a CSV file with columns source and driving."
        ) from error
    if not rows or not {"source", "driving"} <= rows[0].keys():
        raise InputError(f"{path.name} lists no pairs", "Its first line names the columns: source,driving.")
    known = {clip.name: clip for clip in clips}
    for clip in clips:
        known.setdefault(clip.name.rpartition("/")[2], clip)
    return tuple((_named(row["source"], known, path), _named(row["driving"], known, path)) for row in rows)


def _named(name: str, known: Mapping[str, Clip], path: Path) -> Clip:
    if name not in known:
        raise UsageError(f"{path.name} names the clip {name}, which is not there", did_you_mean(name, known))
    return known[name]
