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
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fommctl.api import plain_json
from fommctl.api.values import Split
from fommctl.datasets.keypoints import keypoints_path
from fommctl.errors import InputError, OutputError, UsageError
from fommctl.files import exclusive_folder, remove_stale_files, write_text
from fommctl.media.movie import output_errors

log = logging.getLogger(__name__)
MANIFEST, JOURNAL, LOCK, WORK = "manifest.jsonl", ".preprocess.jsonl", ".preprocess.lock", ".work-"
Key = tuple[str, str]
"""Identity and name of a clip."""
_INSIDE = re.compile(r"(train|test)/[^/\\\0]*[^/\\\0.][^/\\\0]*")
_LONGEST_FILE = 255
"""Bytes, the folder of the split included."""
_RATE = re.compile(r"\d{1,12}/[1-9]\d{0,11}")


@dataclass(frozen=True, slots=True)
class Measure:
    """Bytes and SHA-256 of a file; of a folder of pictures, of all of them in the order of their names."""

    bytes: int
    sha256: str


def measure(path: Path) -> Measure:
    """Read a clip wholly."""
    digest, size = sha256(), 0
    for file in _files(path):
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
                size += len(block)
    return Measure(size, digest.hexdigest())


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the manifest."""

    file: str
    """`train/ID#clip.mp4`, or a folder of pictures, with forward slashes."""
    dataset: str
    identity: str
    name: str
    """As the raw data set has them; the file's name may be a harmless likeness."""
    split: Split
    frames: int
    rate: str
    """Nominal frames a second, such as `30000/1001`."""
    source: str | None
    """The raw file, relative to the raw folder; None for frames that the data set makes."""
    start: float | None
    end: float | None
    """Seconds in the raw file."""
    box: list[float] | None
    """Left, top, right and bottom in pixels of the raw picture."""
    bytes: int
    sha256: str
    source_bytes: int | None
    state: str
    """Hash of all that the clip was made with: where it differs, the clip is made anew."""
    keypoints: str | None = None
    """SHA-256 of the true keypoints beside the clip; None where it has none. Older manifests lack it."""

    @property
    def key(self) -> Key:
        return self.identity, self.name


class Manifest:
    """The manifest of a folder while a run works on it; a context manager that keeps other runs out."""

    def __init__(self, folder: Path, dataset: str) -> None:
        """Raises UsageError where the folder holds anything else than clips of this data set, InputError or
        OutputError where it cannot be used."""
        self.folder = folder
        self.dataset = dataset
        self.entries: dict[Key, Entry] = {}
        self.work = folder
        """A folder beside the clips for what is not finished; gone at the end."""
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"the output is no folder: {folder}", "Choose another one with -o.")
        known = [name for name in (MANIFEST, JOURNAL) if (folder / name).is_file()]
        if not known and folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            hint = "Choose another one with -o: only folders that preprocess has made are continued."
            raise UsageError(f"the output folder is not empty and has no {MANIFEST}: {folder}", hint)
        self._read(tell=True)
        if known and not self.entries and not any(_is_ours(folder / name) for name in known):
            hint = "Choose another one with -o: only folders that preprocess has made are continued."
            raise UsageError(f"{folder / known[0]} is not from preprocess", hint)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(exclusive_folder(self.folder, LOCK))
            remove_stale_files(self.folder)
            # Once more, now that no other run writes.
            self._read(tell=False)
            with output_errors(self.folder):
                self._journal = opened.enter_context(open(self.folder / JOURNAL, "a", encoding="utf-8"))
                for left in self.folder.glob(f"{WORK}*"):
                    shutil.rmtree(left, ignore_errors=True)
                for split in ("train", "test"):
                    (self.folder / split).mkdir(exist_ok=True)
                # A journal whose last line is torn must not swallow the next one.
                self._journal.write("\n")
                self.work = Path(tempfile.mkdtemp(prefix=WORK, dir=self.folder))
            opened.callback(shutil.rmtree, self.work, ignore_errors=True)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            try:
                self._finish()
            except (OSError, OutputError):
                # The journal says the same, and what went wrong first is what has to be told.
                if error is None:
                    raise

    def path(self, entry: Entry) -> Path:
        """Where the clip is."""
        return self.folder / entry.file

    def holds(self, entry: Entry, *, rehash: bool) -> bool:
        """Whether the clip is as it was written: by its size, with `rehash` by its hash."""
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

    def place(self, made: Path, entry: Entry) -> None:
        """Give a finished clip its name, in place of an older one of this key, and note it."""
        target, old = self.path(entry), self.entries.get(entry.key)
        aside = self.work / f"old-{made.name}" if target.is_dir() else None
        if aside is not None:
            target.rename(aside)
        try:
            _replace(made, target)
        except OSError:
            if aside is not None:
                aside.rename(target)
            raise
        self._note(entry)
        if old is not None and old.file != entry.file:
            self.remove(old, keep=keypoints_path(target))

    def move(self, old: Entry, new: Entry) -> None:
        """Rename a clip as it is: its split or its name changed."""
        _replace(self.path(old), self.path(new))
        self._note(new)

    def remove(self, entry: Entry, *, keep: Path | None = None) -> None:
        """Delete the files of an entry, but for this one: two formats of a clip name their keypoints alike."""
        path = self.path(entry)
        if path.exists() and (beside := keypoints_path(path)) != keep:
            beside.unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _note(self, entry: Entry) -> None:
        self._journal.write(f"{json.dumps(asdict(entry))}\n")
        self._journal.flush()
        self.entries[entry.key] = entry

    def _read(self, *, tell: bool) -> None:
        self.entries.clear()
        manifest = read_manifest(self.folder / MANIFEST, tell=tell)
        for entry in chain(manifest, read_manifest(self.folder / JOURNAL, tell=False)):
            if entry.dataset != self.dataset:
                raise UsageError(
                    f"{self.folder} holds the data set {entry.dataset!r}", "Give every data set a folder of its own."
                )
            self.entries[entry.key] = entry

    def _finish(self) -> None:
        there = [entry for entry in self.entries.values() if self.path(entry).exists()]
        write_lines(self.folder / MANIFEST, [asdict(entry) for entry in sorted(there, key=lambda each: each.file)])
        (self.folder / JOURNAL).unlink()


def _is_ours(path: Path) -> bool:
    """Whether a manifest is empty, or has a line like ours, however damaged."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return True
    return not lines or any(all(f'"{name}"' in line for name in ("dataset", "sha256", "state")) for line in lines)


def _replace(clip: Path, target: Path) -> None:
    """Move a clip with what is beside it; the clip last, for it says that all is there."""
    folder = clip.is_dir()
    keypoints, beside = (keypoints_path(path, folder=folder) for path in (clip, target))
    if keypoints.exists():
        os.replace(keypoints, beside)
    else:
        beside.unlink(missing_ok=True)
    os.replace(clip, target)


def read_manifest(path: Path, *, tell: bool) -> Iterator[Entry]:
    """The valid lines of a manifest; none where there is no file. Others (a torn last one, a file elsewhere) are left
    out, with a warning where `tell` asks for it. Raises InputError where it cannot be read."""
    names = {field.name for field in fields(Entry)}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    for number, line in enumerate(lines, start=1):
        entry = _entry(line, names)
        if entry is not None:
            yield entry
        elif line.strip() and tell:
            log.warning("%s: line %d is no clip of this folder and was left out", path, number)


def _entry(line: str, names: set[str]) -> Entry | None:
    try:
        values = plain_json.parse(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or {"keypoints", *values} != names:
        return None
    texts = all(isinstance(values[name], str) for name in ("file", "dataset", "identity", "name", "state", "rate"))
    texts = texts and all(isinstance(values.get(name), str | None) for name in ("keypoints", "source"))
    numbers = all(isinstance(values[name], int) for name in ("frames", "bytes"))
    numbers = numbers and all(isinstance(values[name], int | float | None) for name in ("start", "end", "source_bytes"))
    if not texts or not numbers or not _is_file(values["file"]) or not _RATE.fullmatch(values["rate"]):
        return None
    return Entry(**{**values, "split": values["file"].split("/")[0]})


def _is_file(file: str) -> bool:
    """Whether it names a clip in one of the splits, of a name that the disk can have."""
    try:
        return _INSIDE.fullmatch(file) is not None and len(os.fsencode(file)) <= _LONGEST_FILE
    except ValueError:  # Halves of surrogate pairs.
        return False


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line, all or nothing. Raises OutputError."""
    write_text(path, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
