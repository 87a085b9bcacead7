"""A folder of clips or GIFs of robots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fommctl.api import ClipRecord
from fommctl.api.folders import plain_folder


class Robots:
    """Every video, GIF, picture and folder of frames below the root; each has its own identity unless a list or a `#`
    in its name says otherwise."""

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the videos. Raises InputError if there are none."""
        return plain_folder(root, identity_ends=("#",))
