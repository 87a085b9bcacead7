"""The adapter for MGif."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fommctl.api import ClipRecord
from fommctl.api.folders import plain_folder


class MovingGifs:
    """Every .gif below a folder, each its own identity.

    The folders `train` and `test` of moving-gif-256 are the splits; the raw GIFs have none.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the animations. Raises InputError if there are none."""
        return plain_folder(
            root,
            suffixes={".gif"},
            frame_folders=False,
            identity_ends=(),
            hint="Put GIFs there, or folders train and test with GIFs.",
        )
