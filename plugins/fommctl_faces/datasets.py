"""Face data sets: VoxCeleb, UvA-Nemo, and a plain folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fommctl.api import ClipRecord, InputError
from fommctl.api.folders import media_below, plain_folder, stem
from fommctl.api.protocols import Split
from fommctl.api.video_metadata import chunks

NEMO_TEST = (
    "004 071 093 105 112 116 133 141 148 155 162 166 172 174 176 201 205 213 215 225 "
    "263 265 270 304 336 343 400 414 418 445 447 450 456 483 492 502 505 510 525 536 553"
)
"""The 41 subjects of the test split (video-preprocessing, crop_nemo.py)."""
_NEMO_CLIP = re.compile(r"(\d{3})_(?:deliberate|spontaneous)_smile_\d+.*")


class VoxCeleb:
    """VoxCeleb: chunks of YouTube videos, listed in vox-metadata.csv; identities are VoxCeleb's persons."""

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the chunks that the table lists.

        root: the folder with vox-metadata.csv and, anywhere below it, VIDEO_ID.mp4 (or another container).
        """
        return chunks(root, "vox-metadata.csv")


class UvaNemo:
    """UvA-Nemo smiles, SUBJECT_deliberate_smile_N.mp4 and SUBJECT_spontaneous_smile_N.mp4, with the published split.

    If nemo-metadata.csv is in the folder (written by crop_nemo.py of video-preprocessing), its times and boxes are
    used. Without it, clips are whole frames of 1920x1080 with a small face in the middle: crop them first with
    `fommctl crop`, which may append to the names.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the videos. Raises InputError if no file has such a name."""
        if (root / "nemo-metadata.csv").is_file():
            return chunks(root, "nemo-metadata.csv", person_of=lambda video: video.split("_")[0])
        return self._named(root)

    def _named(self, root: Path) -> Iterator[ClipRecord]:
        names: set[str] = set()
        for path in media_below(root) if root.is_dir() else ():
            match = _NEMO_CLIP.fullmatch(stem(path))
            if match and match[0] not in names:
                names.add(match[0])
                split: Split = "test" if match[1] in NEMO_TEST.split() else "train"
                yield ClipRecord(name=match[0], identity=match[1], split=split, path=path)
        if not names:
            raise InputError(
                f"{root} contains no UvA-Nemo clips", "They have names such as 001_deliberate_smile_2.mp4."
            )


class Faces:
    """Every video, picture and folder of frames below a folder.

    Clips are used as they are: square ones are ready for training; crop others with `fommctl crop` first, because this
    adapter does not look for the face.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the clips. Raises InputError if there are none."""
        return plain_folder(root)
