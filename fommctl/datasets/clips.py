"""Finds the clips of a training set, with their identities and splits."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fommctl.api.folders import identity_of, is_published, media_below, read_manifest, stem
from fommctl.api.protocols import Split
from fommctl.api.readers import read_table
from fommctl.errors import InputError, UsageError
from fommctl.presets.config import did_you_mean


def split_of(identities: Iterable[str], test_fraction: float, seed: int) -> set[str]:
    """Return the identities of the test split: the first ceil(test_fraction * n) by the SHA-256 of `seed:identity`.

    The result depends only on the set of names. Of two or more identities, at least one is in each split, unless the
    fraction is 0; a single one is in train. Raises UsageError for a fraction outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise UsageError(f"invalid test fraction {test_fraction:g}", "Use 0 or more and less than 1, such as 0.1.")
    names = sorted(set(identities), key=lambda name: sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest())
    # Rounded before ceil, as 0.1 * 30 is slightly more than 3 in binary.
    wanted = math.ceil(round(test_fraction * len(names), 9))
    return set(names[: min(wanted, max(0, len(names) - 1))])


_COUNT = re.compile(r"[1-9][0-9]{0,9}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A video, an animation, a folder of frames or a picture of a training set."""

    path: Path
    name: str
    """Path relative to the folder of the split, with `/` and suffix; unique in the split."""
    identity: str
    frames: int

    @property
    def still(self) -> bool:
        """Whether the clip is a single picture."""
        return self.frames == 1


def find_clips(root: Path, split: Split, *, test_fraction: float = 0.1, seed: int = 0) -> tuple[Clip, ...]:
    """Return the clips and stills of one split, in order of their names (see `fommctl.api.folders.media_below`).

    If `root` has folders `train` and `test` (the published layout), those are the splits. Otherwise all media below
    `root` are split by identity (see `split_of`), identities with only stills separately, so that both splits get
    videos.

    The identity is taken from `manifest.jsonl` or `index.csv` in `root`, if it lists the file (it may also have the
    number of frames, which saves counting them), else in the published layout from the folder directly below the split,
    else from the name up to `#` or `__`, else from the name without suffix.

    Files that cannot be read are skipped with a warning. The test split may be empty. Raises InputError if there are no
    clips, or if the manifest cannot be read or names files outside `root`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", "Give the folder with the training data.")
    published = is_published(root)
    folder = root / split if published else root
    clips = tuple(_readable(root, folder, published))
    if not clips and (split == "train" or not published):
        raise InputError(
            f"{folder} contains no readable clips", "Put videos, GIFs, pictures or folders of frames there."
        )
    if published:
        return clips
    moving = {clip.identity for clip in clips if not clip.still}
    still = {clip.identity for clip in clips} - moving
    test = split_of(moving, test_fraction, seed) | split_of(still, test_fraction, seed)
    return tuple(clip for clip in clips if (clip.identity in test) == (split == "test"))


def _readable(root: Path, folder: Path, published: bool) -> Iterator[Clip]:
    from fommctl.media.random_access import count_frames

    manifest = read_manifest(root)
    for path in media_below(folder, published=published):
        row = manifest.get(path.relative_to(root).as_posix(), {})
        name, counted = path.relative_to(folder), str(row.get("frames"))
        try:
            frames = int(counted) if _COUNT.fullmatch(counted) else count_frames(path)
        except InputError as error:
            _log.warning("%s was skipped: %s", name.as_posix(), error.message)
            continue
        identity = str(row.get("identity") or "") or identity_of(name, published=published) or stem(path)
        yield Clip(path, name.as_posix(), identity, frames)


def read_pairs_list(path: Path, clips: Sequence[Clip]) -> tuple[tuple[Clip, Clip], ...]:
    """Read pairs (source, driving) of clips from a CSV file with these two columns, as published.

    The file has names of clips, or only the last part of each name. Raises InputError if it cannot be read or has no
    pairs, UsageError if it names a clip that does not exist.
    """
    rows = [row.cells for row in read_table(Path(path), ("source", "driving"))]
    known = {clip.name: clip for clip in clips}
    for clip in clips:
        known.setdefault(clip.name.rpartition("/")[2], clip)

    def named(name: str) -> Clip:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{path} names the clip {name!r}, which does not exist{near}", "Correct the line.")
        return known[name]

    return tuple((named(row["source"]), named(row["driving"])) for row in rows)
