"""Data sets of whole bodies: Tai-Chi-HD, Fashion, and a plain folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fommctl.api import ClipRecord, InputError
from fommctl.api.folders import SPLITS, VIDEO_SUFFIXES, file_name_part, media_below, plain_folder
from fommctl.api.protocols import Split
from fommctl.api.readers import bounded_lines
from fommctl.api.video_metadata import chunks

FASHION_LISTS: dict[Split, str] = {split: f"fashion_{split}.txt" for split in SPLITS}


class TaiChi:
    """Tai-Chi-HD: chunks of YouTube videos, listed in taichi-metadata.csv.

    Identities are not labelled, so each video counts as one. The table in the first-order-model repository has the
    published split; the earlier one in video-preprocessing has none.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the chunks that the table lists.

        root: the folder with taichi-metadata.csv and, anywhere below it, VIDEO_ID.mp4 (or another container).
        """
        return chunks(root, "taichi-metadata.csv")


class Fashion:
    """Fashion: videos of dresses on a white background (Zablotskaia et al. 2019), each its own identity.

    Published layout: fashion_train.txt and fashion_test.txt with one URL per line, whose last part is the name of a
    file in the folder train or test, where data_crowler.py saves it. With the lists, missing files are reported;
    without them, every video in train and test is used.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the listed videos, or all of them if there are no lists. Raises InputError if no video is found."""
        seen: set[str] = set()
        present = False
        for split in SPLITS:
            listed = _listed(root / FASHION_LISTS[split])
            found = list(media_below(root / split, suffixes=VIDEO_SUFFIXES)) if (root / split).is_dir() else []
            there = {path.name: path for path in found}
            for name in listed or there:
                identity = file_name_part(Path(name).stem, identity=True)
                if identity not in seen:
                    seen.add(identity)
                    present = present or name in there
                    path = there.get(name, root / split / name)
                    yield ClipRecord(name=identity, identity=identity, split=split, path=path)
        if not present:
            raise InputError(
                f"{root} contains no Fashion videos",
                "They are in the folders train and test, under the names in fashion_train.txt and fashion_test.txt.",
            )


def _listed(path: Path) -> list[str]:
    """Return the file names in a list of URLs, in order; empty if there is no such list."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.strip() for line in bounded_lines(file, path)]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Download it again.") from error
    names = [line.split("?")[0].rsplit("/", 1)[-1] for line in lines if line]
    strange = [name for name in names if Path(name).suffix.lower() not in VIDEO_SUFFIXES or "\\" in name]
    if strange:
        raise InputError(f"{path} names {strange[0]!r}, which is not a video", "Each line is the address of a video.")
    return names


class Bodies:
    """Every video, picture and folder of frames below a folder.

    Each is its own identity, unless a manifest assigns one or its name has a `#`, which ends the identity.

    Clips are used as they are: square ones are ready for training; `preprocess` squares the others, unless they are
    cropped first.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the clips. Raises InputError if there are none."""
        return plain_folder(root, identity_ends=("#",))
