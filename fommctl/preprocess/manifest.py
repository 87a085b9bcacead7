"""The manifest of a data set folder, manifest.jsonl, with one line per clip.

Finished clips are first added to a journal; when a run ends, successfully or not, it merges both into one sorted
manifest that replaces the old one atomically. A run that is killed leaves the journal, which the next run reads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fommctl.api.protocols import Split
from fommctl.api.readers import parse_json
from fommctl.datasets.keypoints import keypoints_path
from fommctl.errors import InputError, OutputError, UsageError
from fommctl.files import (
    HeldFolder,
    create_temporary_folder,
    exclusive_folder,
    open_regular,
    read_regular,
    remove_stale_files,
    replace_folder,
    require_own_folder,
    write_text,
)
from fommctl.journal import Journal, parse_line
from fommctl.media.movie import output_errors

log = logging.getLogger(__name__)
MANIFEST, JOURNAL, FAILED = "manifest.jsonl", ".preprocess.jsonl", "failed.jsonl"
MARKER = ".fommctl-preprocess"
"""Name of the file that marks and locks a folder made by preprocess."""
Key = tuple[str, str]
"""Identity and name of a clip."""
_INSIDE = re.compile(r"(train|test)/[^/\\\0]*[^/\\\0.][^/\\\0]*")
_LONGEST_FILE = 255
"""Most bytes of a path, including the folder of the split."""
_FAILURE = {"clip", "split", "source", "message"}


@dataclass(frozen=True, slots=True)
class Measure:
    """Size in bytes and SHA-256 of a file, or of all pictures of a folder in the order of their names."""

    bytes: int
    sha256: str


def measure(path: Path) -> Measure:
    """Return the size and hash of a clip, a file or a folder of pictures."""
    digest, size = sha256(), 0
    for file in _files(path):
        with open_regular(file) as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
                size += len(block)
    return Measure(size, digest.hexdigest())


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _inside(file: str) -> str:
    """Return `file` if it is the path of a clip in one of the splits and valid on file systems. Raises ValueError
    otherwise."""
    if not _INSIDE.fullmatch(file) or len(os.fsencode(file)) > _LONGEST_FILE:
        raise ValueError("not a clip of this folder")
    return file


class ManifestEntry(BaseModel):
    """A line of the manifest."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    file: Annotated[str, AfterValidator(_inside)]
    """Path relative to the folder, such as `train/ID#clip.mp4`, or `train/ID#clip` for a folder of pictures."""
    dataset: str
    identity: str
    """Identity in the raw data set; the file name may have a safe version of it."""
    name: str
    """Name in the raw data set; the file name may have a safe version of it."""
    split: Split
    frames: int
    rate: Annotated[str, Field(pattern=r"^\d{1,12}/[1-9]\d{0,11}$")]
    """Nominal frames per second, such as `30000/1001`."""
    source: str | None
    """Path of the raw file, relative to the raw folder; None for generated frames."""
    start: float | None
    """Seconds since the first frame of the raw file; None for its start."""
    end: float | None
    """Seconds since the first frame of the raw file, exclusive; None for its end."""
    box: list[int | float] | None
    """Left, top, right and bottom in pixels of the raw picture; None for all of it."""
    bytes: int
    """Size of the clip."""
    sha256: str
    """SHA-256 of the clip."""
    source_bytes: int | None
    """Size of the raw file."""
    state: str
    """Hash of everything that affects the clip; if it differs, the clip is made again."""
    keypoints: str | None = None
    """SHA-256 of the true keypoints beside the clip; None without keypoints. Older manifests lack it."""
    source_sha256: str | None = None
    """SHA-256 of the raw file, or of the frames of a raw folder. Older manifests lack it."""

    @model_validator(mode="before")
    @classmethod
    def _in_its_split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**values, "split": str(values.get("file")).split("/")[0]}

    @model_serializer(mode="wrap")
    def _without_unknown_hash(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Do not change the lines of earlier versions, which lack the field."""
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if name != "source_sha256" or value is not None}

    @property
    def key(self) -> Key:
        return self.identity, self.name


class Manifest:
    """The manifest of a data set folder for one run; a context manager that locks the folder."""

    def __init__(self, folder: Path, dataset: str) -> None:
        """Read the manifest.

        Raises UsageError if the folder was not made by preprocess or contains another data set, InputError or
        OutputError if it cannot be used.
        """
        self.folder = folder
        self.dataset = dataset
        self._journal = Journal(folder / JOURNAL, ManifestEntry)
        self.entries: dict[Key, ManifestEntry] = {}
        self.work = folder
        """Temporary folder for unfinished clips."""
        self._foreign: list[str] = []
        """Lines of the manifest that other programs added."""
        require_own_folder(folder, MARKER, contents="data set made by preprocess", made_earlier=_was_made_here)
        self._read(warn=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(exclusive_folder(self.folder, MARKER))
            remove_stale_files(self.folder)
            # Read again, as no other run can write from now on.
            self._read(warn=False)
            with output_errors(self.folder):
                for split in ("train", "test"):
                    (self.folder / split).mkdir(exist_ok=True)
                self.work = create_temporary_folder(self.folder / "work")
                held = HeldFolder(self.folder)
            opened.callback(held.close)
            opened.callback(held.remove, self.work.name)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                self._finish()
            except (OSError, OutputError):
                # The journal has the same entries, and the first error is the one to report.
                if error is None:
                    raise

    def path(self, entry: ManifestEntry) -> Path:
        """Return the path of the clip."""
        return self.folder / entry.file

    def holds(self, entry: ManifestEntry, *, rehash: bool) -> bool:
        """Return whether the clip is unchanged, by its size or with `rehash` by its hash."""
        path = self.path(entry)
        try:
            if rehash:
                whole = measure(path) == Measure(entry.bytes, entry.sha256)
            else:
                whole = sum(file.stat().st_size for file in _files(path)) == entry.bytes
            # Keypoints are always hashed: they have a few kilobytes.
            recorded = entry.keypoints
            return whole and (recorded is None or measure(keypoints_path(path)).sha256 == recorded)
        except OSError:
            return False

    def place(self, made: Path, entry: ManifestEntry) -> None:
        """Move a finished clip to its place, replace an older one of the same key, and add it to the journal."""
        target, old = self.path(entry), self.entries.get(entry.key)
        with output_errors(target):
            _replace(made, target)
        self._note(entry)
        if old is not None and old.file != entry.file:
            self.remove(old, keep=keypoints_path(target))

    def move(self, old: ManifestEntry, new: ManifestEntry) -> None:
        """Move a clip whose split or name changed."""
        _replace(self.path(old), self.path(new))
        self._note(new)

    def remove(self, entry: ManifestEntry, *, keep: Path | None = None) -> None:
        """Delete the files of an entry.

        keep: file of keypoints not to delete, as it has the same name for a clip in two formats.
        """
        path = self.path(entry)
        if path.exists() and (beside := keypoints_path(path)) != keep:
            beside.unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _note(self, entry: ManifestEntry) -> None:
        self.entries[entry.key] = entry
        self._journal.append(entry)

    def _read(self, *, warn: bool) -> None:
        self.entries.clear()
        self._foreign.clear()
        found = []
        for number, line in enumerate(_lines(self.folder / MANIFEST), start=1):
            entry = parse_line(ManifestEntry, line)
            if entry is None:
                self._skip(line, f"{self.folder / MANIFEST}: line {number}", warn=warn)
            else:
                found.append(entry)
        for entry in [*found, *self._journal.read()]:
            if entry.dataset != self.dataset:
                raise UsageError(
                    f"{self.folder} contains the data set {entry.dataset!r}", "Use a separate folder for each data set."
                )
            self.entries[entry.key] = entry

    def _skip(self, line: str, place: str, *, warn: bool) -> None:
        """Keep a line that another program added; drop a damaged one of preprocess."""
        foreign = _is_foreign(line)
        if foreign:
            self._foreign.append(line)
        if warn and line.strip():
            log.warning("%s is not a clip of this folder and was %s", place, "kept" if foreign else "dropped")

    def _finish(self) -> None:
        existing = sorted((one for one in self.entries.values() if self.path(one).exists()), key=lambda each: each.file)
        lines = [*(_as_line(entry.model_dump()) for entry in existing), *(f"{line}\n" for line in self._foreign)]
        write_text(self.folder / MANIFEST, "".join(lines))
        self._journal.path.unlink(missing_ok=True)

    def list_failed(self, failed: Sequence[Mapping[str, Any]]) -> None:
        """Write the failed clips to `failed.jsonl`, or delete it if there are none; another program's file is kept."""
        path = self.folder / FAILED
        if path.exists() and not all(_is_failure(line) for line in _lines(path)):
            log.warning("%s is not from preprocess and was not written", path)
        elif failed:
            write_text(path, "".join(map(_as_line, failed)))
        else:
            path.unlink(missing_ok=True)


def _was_made_here(folder: Path) -> bool:
    """Return whether an earlier version of preprocess, which left no marker, made this folder.

    Its manifest then has a line of preprocess, or is empty, next to both splits.
    """
    if (folder / JOURNAL).is_file():
        return True
    lines = [line for line in _lines(folder / MANIFEST) if line.strip()]
    if not lines:
        return all((folder / name).exists() for name in (MANIFEST, "train", "test"))
    return any(_is_like_ours(line) for line in lines)


def _is_like_ours(line: str) -> bool:
    return all(f'"{name}"' in line for name in ("dataset", "sha256", "state"))


def _is_foreign(line: str) -> bool:
    """Return whether another program wrote this line, as readers of the manifest accept any JSON object."""
    try:
        return isinstance(parse_json(line), dict) and not _is_like_ours(line)
    except ValueError:
        return False


def _is_failure(line: str) -> bool:
    try:
        values = parse_json(line) if line.strip() else dict.fromkeys(_FAILURE)
    except ValueError:
        return False
    return isinstance(values, dict) and values.keys() == _FAILURE


def _replace(clip: Path, target: Path) -> None:
    """Move a clip with its keypoints; the clip last, as its existence means that it is complete.

    Raises OSError; then the old clip and keypoints are unchanged.
    """
    folder = clip.is_dir()
    keypoints, beside = (keypoints_path(path, folder=folder) for path in (clip, target))
    old = read_regular(beside) if beside.exists() else None
    try:
        if keypoints.exists():
            os.replace(keypoints, beside)
        else:
            beside.unlink(missing_ok=True)
        if folder:
            replace_folder(clip, target)
        else:
            os.replace(clip, target)
    except OSError:
        if old is not None:
            beside.write_bytes(old)
        raise


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it does not exist. Raises InputError if it cannot be read."""
    try:
        return read_regular(path).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error


def _as_line(row: Mapping[str, Any]) -> str:
    return f"{json.dumps(row, allow_nan=False)}\n"
