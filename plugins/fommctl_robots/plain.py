"""The adapter for plain folders of robot clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fommctl.api import ClipRecord
from fommctl.api.folders import plain_folder


class Robots:
    """Every video, GIF, picture and folder of frames below a folder.

    Each is its own identity, unless a manifest assigns one or its name has a `#`, which ends the identity.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the clips. Raises InputError if there are none."""
        return plain_folder(root, identity_ends=("#",))
