"""Reads the tables of video chunks that come with https://github.com/AliaksandrSiarohin/video-preprocessing.

A row is a chunk of one raw video: `video_id,start,end,bbox,fps,width,height,partition,person_id`. `start` and `end`
count frames at `fps`, the end exclusive; `bbox` is LEFT-TOP-RIGHT-BOTTOM in pixels of a frame of `width` x `height`,
and may extend beyond it. The raw video may have another rate and size: the published load_videos.py takes the frames
whose time is in [start / fps, end / fps) and scales the box. `partition` is missing from the first table of Tai-Chi-HD,
`person_id` from all of Tai-Chi-HD. A video id may end in `#` and the person.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fommctl.api.folders import SPLITS, VIDEO_SUFFIXES, file_name_part, media_below
from fommctl.api.protocols import ClipRecord, Split
from fommctl.api.readers import Row, columns_of, read_table
from fommctl.errors import InputError
from fommctl.media.boxes import Box

_log = logging.getLogger(__name__)

COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")
_SHOWN_WARNINGS = 5
_BOX = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
_PLAIN_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")


def chunks(root: Path, metadata: str, *, person_of: Callable[[str], str] = str) -> Iterator[ClipRecord]:
    """Yield a record for each row of a table of chunks.

    Rows that cannot be used (an invalid number, an end before the start, an empty box, an id that is not a file name,
    a duplicate) are skipped with a warning. Records are named as published, `PERSON#VIDEO#START#END`, or
    `VIDEO#START#END` if the person is the video. A person's first row decides the split.

    root: folder with the table, and the videos anywhere below it, named after their ids. The record of a missing video
    has the path where it is expected.  metadata: file name of the table; if there is no such file, the only CSV file
    in `root` with these columns is used.  person_of: returns the person of a video id, for rows without a person.
    Raises InputError if there is no table, it lacks a column, no row is usable, or `root` has none of its videos.
    """
    table = _find_table(root, metadata)
    found = list(_usable(table, person_of))
    videos = _videos(root)
    wanted = {chunk.video for chunk in found}
    if not wanted & videos.keys():
        some = min(wanted)
        raise InputError(
            f"none of the {len(wanted)} videos that {table.name} names is below {root}",
            f"Put them there under their ids, such as {some}.mp4, in whichever container.",
        )
    splits: dict[str, Split | None] = {}
    for chunk in found:
        split = splits.setdefault(chunk.person, chunk.split)
        if split != chunk.split:
            _log.warning("%s: %s is in %s and in %s; the first counts", table, chunk.person, split, chunk.split)
        yield ClipRecord(
            name=chunk.name,
            identity=chunk.person,
            split=split,
            path=videos.get(chunk.video, root / f"{chunk.video}.mp4"),
            start=chunk.start / chunk.rate,
            end=chunk.end / chunk.rate,
            box=chunk.box,
            box_frame=chunk.frame,
        )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A row of the table."""

    video: str
    person: str
    start: int
    """First frame, counted at `rate`."""
    end: int
    """Last frame, exclusive."""
    rate: float
    box: Box
    frame: tuple[int, int]
    """(width, height)"""
    split: Split | None

    @property
    def name(self) -> str:
        times = f"{self.start:06d}#{self.end:06d}"
        return times if self.person == self.video else f"{self.video}#{times}"


def _find_table(root: Path, metadata: str) -> Path:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", f"Name the folder with {metadata} and the videos.")
    if (root / metadata).is_file():
        return root / metadata
    tables = sorted(path for path in root.glob("*.csv") if not path.name.startswith("."))
    fitting = [path for path in tables if set(COLUMNS) <= set(columns_of(path))]
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise InputError(f"{root} contains several tables: {names}", f"Rename the one to use to {metadata}.")
    if not fitting:
        raise InputError(
            f"{root} has no {metadata}", f"Put it there, next to the videos. Its columns: {', '.join(COLUMNS)}."
        )
    return fitting[0]


def _usable(table: Path, person_of: Callable[[str], str]) -> Iterator[_Chunk]:
    seen: Counter[tuple[str, str]] = Counter()
    bad = good = 0
    for row in read_table(table, COLUMNS):
        try:
            chunk = _chunk(row.cells, person_of)
            seen[chunk.person, chunk.name] += 1
            if seen[chunk.person, chunk.name] > 1:
                raise ValueError(f"duplicate of {chunk.video} from {chunk.start} to {chunk.end}")
        except ValueError as error:
            bad += 1
            _warn(table, row, error, bad)
            continue
        good += 1
        yield chunk
    if bad > _SHOWN_WARNINGS:
        _log.warning("%s: %d rows were skipped in total", table, bad)
    if not good:
        raise InputError(f"{table} has no usable row", "Download it again; the log says what is wrong with each row.")


def _warn(table: Path, row: Row, error: ValueError, count: int) -> None:
    level = logging.WARNING if count <= _SHOWN_WARNINGS else logging.INFO
    _log.log(level, "%s, line %d was skipped: %s", table, row.line, error)


def _chunk(cells: Mapping[str, str], person_of: Callable[[str], str]) -> _Chunk:
    """Parse a row. Raises ValueError with the reason why it cannot be used."""
    video, _, owner = cells["video_id"].partition("#")
    video = video.removesuffix(".mp4")
    person = cells.get("person_id") or owner or person_of(video)
    for what, name in (("video_id", video), ("person_id", person)):
        if not _PLAIN_NAME.fullmatch(name) or name.startswith("."):
            raise ValueError(f"{what} {name!r} cannot be a file name")
    start, end = (_whole(cells, name) for name in ("start", "end"))
    if end <= start:
        raise ValueError(f"the end {end} is not after the start {start}")
    rate = _positive(cells, "fps")
    match = _BOX.fullmatch(cells["bbox"])
    if not match:
        raise ValueError(f"bbox is {cells['bbox']!r}, not LEFT-TOP-RIGHT-BOTTOM")
    box = Box(*(float(side) for side in match.groups()))
    if box.width <= 0 or box.height <= 0:
        raise ValueError(f"the box {cells['bbox']} is empty")
    frame = (math.ceil(_positive(cells, "width")), math.ceil(_positive(cells, "height")))
    split = cells.get("partition", "")
    if split not in ("", *SPLITS):
        raise ValueError(f"partition is {split!r}, neither train nor test")
    person = file_name_part(person, identity=True)
    return _Chunk(video, person, start, end, rate, box, frame, next((each for each in SPLITS if each == split), None))


def _whole(cells: Mapping[str, str], name: str) -> int:
    number = _number(cells, name)
    if number < 0 or number != int(number):
        raise ValueError(f"{name} is {cells[name]}, not a number of frames")
    return int(number)


def _positive(cells: Mapping[str, str], name: str) -> float:
    number = _number(cells, name)
    if number <= 0:
        raise ValueError(f"{name} is {cells[name]}, not above zero")
    return number


def _number(cells: Mapping[str, str], name: str) -> float:
    try:
        number = float(cells[name])
    except ValueError:
        number = math.nan
    if not abs(number) < 1e9:
        raise ValueError(f"{name} is {cells[name]!r}, not a number")
    return number


def _videos(root: Path) -> dict[str, Path]:
    """Return video files by their names without suffixes; of several with one name, the one nearest to `root`."""
    found = media_below(root, suffixes=VIDEO_SUFFIXES, frame_folders=False)
    nearest: dict[str, Path] = {}
    for path in sorted(found, key=lambda each: len(each.parts)):
        nearest.setdefault(path.stem, path)
    return nearest
