"""Folders of frames, printf patterns such as `frames/%05d.png`, and the suffixes of media files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fommctl.errors import InputError

_VIDEOS = """3g2 3gp asf avi divx dv f4v flv gif m2t m2ts m2v m4v mkv mod mov mp4 mpeg mpg mts mxf ogm ogv qt tod ts vob
webm wmv y4m"""
_PICTURES = "avif bmp dpx exr heic heif hif jp2 jpe jpeg jpg pgm png pnm ppm tga tif tiff webp"
_TEXTS = "csv html json jsonl log md npy npz parquet txt yaml yml"
"""Suffixes of tables and notes, which are never meant as footage."""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
PICTURE_SUFFIXES = frozenset(f".{name}" for name in _PICTURES.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES
FRAME_SUFFIXES = PICTURE_SUFFIXES | {".gif"}
"""Suffixes of the pictures of a folder that is a clip."""
_PLATES = (".exr", ".dpx")
"""Suffixes of pictures whose numbers are frame numbers even in a folder."""
_MOST = 8
"""Most suffixes that a message lists."""


def passed_over(names: Iterable[str]) -> str | None:
    """Describe how many files of each suffix were passed over; None if only tables and notes were."""
    endings = (f".{name.rpartition('.')[2].lower()}" if "." in name.lstrip(".") else "no ending" for name in names)
    counts = Counter(ending for ending in endings if ending[1:] not in _TEXTS.split())
    if not counts:
        return None
    listed = [f"{ending} ({count})" for ending, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]
    more = f" and {len(listed) - _MOST} more endings" if len(listed) > _MOST else ""
    total = sum(counts.values())
    return f"{total} file{'' if total == 1 else 's'} passed over: {', '.join(listed[:_MOST])}{more}"


_NUMBER = re.compile(r"%(?:0(?P<printf>\d{1,2}))?d|(?:(?P<first>\d{1,9})-(?P<last>\d{1,9}))?(?P<hashes>#{1,9})")
"""`%05d` as in printf, `####` (one digit each; a single # stands for four), and `1001-1100#` for a range."""
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\.[^.]+)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """The parsed name of numbered pictures."""

    before: str
    after: str
    width: int
    """Least number of digits."""
    first: int | None = None
    last: int | None = None

    def number(self, name: str) -> int | None:
        """Return the number of the picture with this name; None if the name does not match, or is out of range."""
        digits = name[len(self.before) : len(name) - len(self.after)]
        if not (name.startswith(self.before) and name.endswith(self.after) and digits.isascii() and digits.isdigit()):
            return None
        # %05d prints 5 digits, and more only if the number needs them, so without a leading zero.
        if len(digits) != self.width and not (len(digits) > self.width and digits[0] != "0"):
            return None
        number = int(digits)
        inside = (self.first is None or number >= self.first) and (self.last is None or number <= self.last)
        return number if inside else None


def pattern_of(path: Path) -> Pattern | None:
    """Parse a name as pattern; None if it is not one, or if a file with that very name exists."""
    found = list(_NUMBER.finditer(path.name))
    if len(found) != 1 or path.exists():
        return None
    match = found[0]
    hashes = len(match["hashes"] or "")
    width = (4 if hashes == 1 else hashes) if hashes else int(match["printf"] or 1)
    first, last = (int(match[end]) if match[end] else None for end in ("first", "last"))
    return Pattern(path.name[: match.start()], path.name[match.end() :], width, first, last)


def is_sequence(path: Path) -> bool:
    """Return whether the name is a pattern, and not the name of an existing file."""
    return pattern_of(path) is not None


def listed(path: Path) -> list[tuple[int, Path]]:
    """Return the frames of a folder or a pattern in order, each with its position. Raises InputError if there are none.

    In a folder, names are in natural order (frame2 before frame10) and positions have no gaps. In a pattern, and in a
    folder of one sequence of OpenEXR or DPX pictures, the position is the number in the name minus the first one, so
    that a missing frame leaves a gap.
    """
    found = _numbered(path)
    return [(number - found[0][0], file) for number, file in found]


def _numbered(path: Path) -> list[tuple[int, Path]]:
    """Return the frames with their numbers; frames of a folder without frame numbers are numbered from 0."""
    pattern = pattern_of(path)
    folder = path.parent if pattern is not None else path
    try:
        files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}", "Check the folder's name.") from error
    if pattern is None:
        pictures = sorted((file for file in files if file.suffix.lower() in FRAME_SUFFIXES), key=counting_order)
        _check_one_kind(folder, pictures)
        pattern = _common_pattern(pictures)
        if pattern is None:
            found = list(enumerate(pictures))
        else:
            found = _in_order(pattern, pictures)
        hint = "Name a video, or a folder that holds pictures such as 00001.png."
    else:
        found = _in_order(pattern, files)
        hint = f"No file in {folder} fits the pattern; check the number of digits."
        negative = next((file.name for file in files if _is_negative(pattern, file.name)), None)
        if negative is not None:
            raise _negative(negative)
    if not found:
        raise InputError(f"{path} contains no pictures" if path.is_dir() else f"{path} matches no file", hint)
    return found


def _in_order(pattern: Pattern, files: list[Path]) -> list[tuple[int, Path]]:
    numbers = ((pattern.number(file.name), file) for file in files)
    return sorted((number, file) for number, file in numbers if number is not None)


def _is_negative(pattern: Pattern, name: str) -> bool:
    middle = name[len(pattern.before) : len(name) - len(pattern.after)]
    fits = name.startswith(pattern.before) and name.endswith(pattern.after)
    return fits and re.fullmatch(r"-\d+", middle) is not None


def _negative(name: str) -> InputError:
    return InputError(f"negative frame numbers are not supported: {name}", "Number the frames from 0.")


def _check_one_kind(folder: Path, pictures: list[Path]) -> None:
    """Raise InputError for a folder with OpenEXR or DPX pictures and others, or with several sequences of them."""
    plates = [file for file in pictures if file.suffix.lower() in _PLATES]
    if not plates:
        return
    negative = next((file.name for file in plates if re.search(r"(^|[._])-\d+\.[^.]+$", file.name)), None)
    if negative is not None:
        raise _negative(negative)
    matches = ((file, _LAST_NUMBER.fullmatch(file.name)) for file in pictures)
    kinds = Counter(f"{match[1]}#{match[3]}" if match else file.suffix.lower() for file, match in matches)
    if len(kinds) > 1:
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items())[:_MOST])
        raise InputError(
            f"{folder} contains pictures of several kinds: {listed}",
            "Name one sequence: name.####.exr, not its folder.",
        )


def _common_pattern(pictures: list[Path]) -> Pattern | None:
    """Return the common pattern of OpenEXR or DPX pictures in a folder; None for other pictures or several patterns."""
    match = _LAST_NUMBER.fullmatch(pictures[0].name) if pictures else None
    if match is None or pictures[0].suffix.lower() not in _PLATES:
        return None
    pattern = Pattern(match[1], match[3], len(match[2]) if match[2].startswith("0") or len(match[2]) >= 4 else 1)
    numbers = [pattern.number(file.name) for file in pictures]
    return pattern if None not in numbers else None


def first_number(path: Path) -> int | None:
    """Return the number in the first picture's name; None if the numbers in the names are not frame numbers.

    Raises InputError.
    """
    if path.is_dir():
        pictures = [file for file in path.iterdir() if file.suffix.lower() in _PLATES]
        if not pictures or _common_pattern(sorted(pictures, key=counting_order)) is None:
            return None
    elif not is_sequence(path):
        return None
    return _numbered(path)[0][0]


def counting_order(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key for natural order: frame2 before frame10."""
    parts = re.split(r"(\d+)", file.name.lower())
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts], file.name
