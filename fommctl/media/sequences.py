"""Folders of frames, printf patterns such as `frames/%05d.png`, and the endings by which media are recognised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fommctl.errors import InputError

_VIDEOS = """3g2 3gp asf avi divx dv f4v flv gif m2t m2ts m2v m4v mkv mod mov mp4 mpeg mpg mts mxf ogm ogv qt tod ts vob
webm wmv y4m"""
_PICTURES = "avif bmp heic heif hif jp2 jpe jpeg jpg pgm png pnm ppm tga tif tiff webp"
_TEXTS = "csv html json jsonl log md npy npz parquet txt yaml yml"
"""Tables and notes, which nobody takes for footage."""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
PICTURE_SUFFIXES = frozenset(f".{name}" for name in _PICTURES.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES
FRAME_SUFFIXES = PICTURE_SUFFIXES | {".gif"}
"""Of the pictures of a folder that is a clip."""
_MOST = 8
"""Endings that are listed."""


def passed_over(names: Iterable[str]) -> str | None:
    """How many files of each ending were passed over, in words; None where only tables and notes were."""
    endings = (f".{name.rpartition('.')[2].lower()}" if "." in name.lstrip(".") else "no ending" for name in names)
    counts = Counter(ending for ending in endings if ending[1:] not in _TEXTS.split())
    if not counts:
        return None
    listed = [f"{ending} ({count})" for ending, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]
    more = f" and {len(listed) - _MOST} more endings" if len(listed) > _MOST else ""
    total = sum(counts.values())
    return f"{total} file{'' if total == 1 else 's'} passed over: {', '.join(listed[:_MOST])}{more}"


_NUMBER = re.compile(r"%(?:0(\d{1,2}))?d")


def is_pattern(path: Path) -> bool:
    """Whether the name holds one printf number, and no file has that very name."""
    return len(_NUMBER.findall(path.name)) == 1 and not path.exists()


def listed(path: Path) -> list[tuple[int, Path]]:
    """The frames of a folder or a pattern in order, each with its position. Raises InputError where there is none.

    In a folder, names are ordered as people count (frame2 before frame10) and positions have no gaps. In a pattern,
    the position is the number in the name, less the first one, so that a missing frame leaves its place empty.
    """
    folder = path if path.is_dir() else path.parent
    try:
        files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", "Check the folder's name.") from error
    if path.is_dir():
        pictures = sorted((file for file in files if file.suffix.lower() in FRAME_SUFFIXES), key=counting_order)
        found = list(enumerate(pictures))
        hint = "Name a video, or a folder that holds pictures such as 00001.png."
    else:
        found = _matching(path.name, files)
        hint = f"No file in {folder} fits the pattern; check the number of digits."
    if not found:
        raise InputError(f"{path} holds no pictures" if path.is_dir() else f"{path} matches no file", hint)
    return found


def _matching(name: str, files: list[Path]) -> list[tuple[int, Path]]:
    match = _NUMBER.search(name)
    assert match is not None
    width = int(match[1] or 1)
    shape = re.compile(re.escape(name[: match.start()]) + r"(\d+)" + re.escape(name[match.end() :]))
    numbered = []
    for file in files:
        fits = shape.fullmatch(file.name)
        # %05d prints 5 digits, more only where the number needs them, and then without a leading zero.
        if fits and (len(fits[1]) == width or (len(fits[1]) > width and fits[1][0] != "0")):
            numbered.append((int(fits[1]), file))
    numbered.sort()
    return [(number - numbered[0][0], file) for number, file in numbered]


def first_number(path: Path) -> int:
    """The number of the first picture: of a pattern the one in its name, else 1. Raises InputError."""
    if not is_pattern(path):
        return 1
    match = _NUMBER.search(path.name)
    assert match is not None
    return int(listed(path)[0][1].name[match.start() :][: -len(path.name[match.end() :]) or None])


def counting_order(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    """What to sort files by so that names come as people count: frame2 before frame10."""
    parts = re.split(r"(\d+)", file.name.lower())
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts], file.name
