"""The endings by which videos and pictures are recognised in a folder: one list for every command.

A file that is named singly is recognised by its content, whatever it is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

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
