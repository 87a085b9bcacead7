"""By what an output is recognised as the one that was written: bytes and time of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fommctl.media.output_paths import is_pattern, matching


@dataclass(frozen=True, slots=True)
class Stamp:
    """Bytes of a file and its time of change; of a pattern of frames, of all of them and of the latest."""

    size: int
    mtime_ns: int


def stamp_of(output: Path) -> Stamp | None:
    """Of what is there; None where nothing is."""
    try:
        files = [path for _, path in matching(output)] if is_pattern(output) else [output]
        found = [file.stat() for file in files]
    except OSError:
        return None
    return Stamp(sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)) if found else None
