"""manifest.jsonl: what a data set folder holds, one line a clip, kept true while clips are added.

While a run works, every finished clip is added to a journal; at its end, however it ends, both become one sorted
manifest that replaces the old one at once. A run that was killed leaves the journal, which the next one reads.
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
"""Name of the file that marks and locks a folder of ours."""
Key = tuple[str, str]
"""Identity and name of a clip."""
_INSIDE = re.compile(r"(train|test)/[^/\\\0]*[^/\\\0.][^/\\\0]*")
_LONGEST_FILE = 255
"""Bytes of a path, the folder of the split included."""
_FAILURE = {"clip", "split", "source", "message"}


@dataclass(frozen=True, slots=True)
class Measure:
    """Bytes and SHA-256 of a file, or of all pictures of a folder in the order of their names."""

    bytes: int
    sha256: str


def measure(path: Path) -> Measure:
    """Measure a clip by reading all of it."""
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
    """Return the name of a clip in one of the splits that a file system takes. Raises ValueError for any other."""
    if not _INSIDE.fullmatch(file) or len(os.fsencode(file)) > _LONGEST_FILE:
        raise ValueError("not a clip of this folder")
    return file


class ManifestEntry(BaseModel):
    """A line of the manifest."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    file: Annotated[str, AfterValidator(_inside)]
    """Path `train/ID#clip.mp4`, or that of a folder of pictures, with forward slashes."""
    dataset: str
    identity: str
    name: str
    """Name in the raw data set, as `identity`; the file name may be a safe version of both."""
    split: Split
    frames: int
    rate: Annotated[str, Field(pattern=r"^\d{1,12}/[1-9]\d{0,11}$")]
    """Nominal frames per second, such as `30000/1001`."""
    source: str | None
    """Raw file, relative to the raw folder; None for frames that the data set makes."""
    start: float | None
    end: float | None
    """End in seconds of the raw file, as `start`."""
    box: list[int | float] | None
    """Box in pixels of the raw picture: left, top, right, bottom."""
    bytes: int
    sha256: str
    source_bytes: int | None
    state: str
    """Hash of everything that the clip was made with: where it differs, the clip is made anew."""
    keypoints: str | None = None
    """SHA-256 of the true keypoints beside the clip; None where it has none. Older manifests lack it."""
    source_sha256: str | None = None
    """SHA-256 of the raw file, or of the frames of a raw folder. Older manifests lack it."""

    @model_validator(mode="before")
    @classmethod
    def _in_its_split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**values, "split": str(values.get("file")).split("/")[0]}

    @model_serializer(mode="wrap")
    def _as_noted(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave lines of earlier versions as they are."""
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if name != "source_sha256" or value is not None}

    @property
    def key(self) -> Key:
        return self.identity, self.name


class Manifest:
    """The manifest of a folder while a run works on it; a context manager that keeps other runs out."""

    def __init__(self, folder: Path, dataset: str) -> None:
        """Read the manifest. Raises UsageError where the folder holds anything but clips of this data set, InputError
        or OutputError where it cannot be used."""
        self.folder = folder
        self.dataset = dataset
        self._journal = Journal(folder / JOURNAL, ManifestEntry)
        self.entries: dict[Key, ManifestEntry] = {}
        self.work = folder
        """Temporary folder beside the clips for what is not finished."""
        self._foreign: list[str] = []
        """Lines of the manifest that other programs have added."""
        require_own_folder(folder, MARKER, contents="data set made by preprocess", made_earlier=_was_made_here)
        self._read(warn=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(exclusive_folder(self.folder, MARKER))
            remove_stale_files(self.folder)
            # Once more, now that no other run writes.
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
                # The journal holds the same; the first error is the one to report.
                if error is None:
                    raise

    def path(self, entry: ManifestEntry) -> Path:
        """Return where the clip is."""
        return self.folder / entry.file

    def holds(self, entry: ManifestEntry, *, rehash: bool) -> bool:
        """Return whether the clip is as it was written: by its size, with `rehash` by its hash."""
        path = self.path(entry)
        try:
            if rehash:
                whole = measure(path) == Measure(entry.bytes, entry.sha256)
            else:
                whole = sum(file.stat().st_size for file in _files(path)) == entry.bytes
            # The keypoints are a few kilobytes, cheaply read.
            told = entry.keypoints
            return whole and (told is None or measure(keypoints_path(path)).sha256 == told)
        except OSError:
            return False

    def place(self, made: Path, entry: ManifestEntry) -> None:
        """Give a finished clip its name, in place of an older one of this key, and note it."""
        target, old = self.path(entry), self.entries.get(entry.key)
        with output_errors(target):
            _replace(made, target)
        self._note(entry)
        if old is not None and old.file != entry.file:
            self.remove(old, keep=keypoints_path(target))

    def move(self, old: ManifestEntry, new: ManifestEntry) -> None:
        """Rename a clip as it is: its split or its name changed."""
        _replace(self.path(old), self.path(new))
        self._note(new)

    def remove(self, entry: ManifestEntry, *, keep: Path | None = None) -> None:
        """Delete the files of an entry, but for this one: two formats of a clip name their keypoints alike."""
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
                self._pass_over(line, f"{self.folder / MANIFEST}: line {number}", warn=warn)
            else:
                found.append(entry)
        for entry in [*found, *self._journal.read()]:
            if entry.dataset != self.dataset:
                raise UsageError(
                    f"{self.folder} contains the data set {entry.dataset!r}", "Give every data set its own folder."
                )
            self.entries[entry.key] = entry

    def _pass_over(self, line: str, place: str, *, warn: bool) -> None:
        """Keep a line that another program has added; leave out one of ours that is damaged."""
        foreign = _is_foreign(line)
        if foreign:
            self._foreign.append(line)
        if warn and line.strip():
            log.warning("%s is not a clip of this folder and was %s", place, "kept" if foreign else "left out")

    def _finish(self) -> None:
        there = sorted((one for one in self.entries.values() if self.path(one).exists()), key=lambda each: each.file)
        lines = [*(_as_line(entry.model_dump()) for entry in there), *(f"{line}\n" for line in self._foreign)]
        write_text(self.folder / MANIFEST, "".join(lines))
        self._journal.path.unlink(missing_ok=True)

    def list_failed(self, failed: Sequence[Mapping[str, Any]]) -> None:
        """Write the clips that could not be made to `failed.jsonl`, or remove it; a file of others stays."""
        path = self.folder / FAILED
        if path.exists() and not all(_is_failure(line) for line in _lines(path)):
            log.warning("%s is not from preprocess and was not written", path)
        elif failed:
            write_text(path, "".join(map(_as_line, failed)))
        else:
            path.unlink(missing_ok=True)


def _was_made_here(folder: Path) -> bool:
    """Return whether an earlier version made this folder: its manifest has a line of ours, or it is empty beside both
    splits."""
    if (folder / JOURNAL).is_file():
        return True
    lines = [line for line in _lines(folder / MANIFEST) if line.strip()]
    if not lines:
        return all((folder / name).exists() for name in (MANIFEST, "train", "test"))
    return any(_is_like_ours(line) for line in lines)


def _is_like_ours(line: str) -> bool:
    return all(f'"{name}"' in line for name in ("dataset", "sha256", "state"))


def _is_foreign(line: str) -> bool:
    """Return whether another program wrote this line: readers of the manifest take any JSON object."""
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
    """Move a clip with what is beside it; the clip last, for its presence means that all is there. Raises OSError;
    then the old clip is in its place."""
    folder = clip.is_dir()
    keypoints, beside = (keypoints_path(path, folder=folder) for path in (clip, target))
    # A few kilobytes.
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
    """Read the lines of a file; none where there is no file. Raises InputError where it cannot be read."""
    try:
        return read_regular(path).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error


def _as_line(row: Mapping[str, Any]) -> str:
    return f"{json.dumps(row, allow_nan=False)}\n"
