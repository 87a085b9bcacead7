"""Plans the files to write from the clips that a data set adapter lists."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

from fommctl.api.folders import PICTURE_SUFFIXES
from fommctl.api.protocols import ClipRecord, Split
from fommctl.api.specs import DatasetSpec
from fommctl.datasets.clips import split_of
from fommctl.errors import FommctlError, InputError, UsageError, describe
from fommctl.files import comparable_name, not_there, safe_file_name
from fommctl.preprocess.clip import ClipOptions

log = logging.getLogger(__name__)
_STATE_VERSION = 1
"""Version of the procedure; raising it makes the next run replace all clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One clip of the raw data set, with its place in the output."""

    record: ClipRecord
    name: str
    """Name of the clip, unique within its identity."""
    split: Split
    stem: str
    """File name without suffix, `ID#clip`, valid on every file system."""
    source: str | None
    """Path of the raw file relative to the raw folder, with `/`; None for generated frames."""
    source_bytes: int | None
    """Size of the raw file; None if it is missing, and for generated frames."""
    state: str
    """Hash of everything that affects the clip."""
    problem: str | None
    """Reason why the clip cannot be made, or None."""

    @property
    def key(self) -> tuple[str, str]:
        return self.record.identity, self.name


def read_records(spec: DatasetSpec, owner: str, root: Path | None) -> list[ClipRecord]:
    """Return the clips that the adapter lists, in its order.

    owner: name of the adapter's plugin, for messages.  root: the raw folder, or None for generated frames.
    Raises InputError if there are no clips, UsageError if a raw folder is needed, FommctlError if the adapter fails.
    """
    note = f"About the data: {spec.licence}"
    if root is None:
        with tempfile.TemporaryDirectory() as empty:
            try:
                records = _records(spec, owner, Path(empty))
            except InputError:
                records = []
        if not records:
            call = f"Name its folder: fommctl preprocess {spec.name} RAW -o DIR."
            raise UsageError(f"the data set {spec.name!r} is read from a raw folder", f"{call} {note}")
        return records
    if not root.exists():
        error = not_there(root)
        raise InputError(error.message, f"{error.hint} {note}")
    try:
        records = _records(spec, owner, root)
    except InputError as error:
        raise InputError(error.message, f"{error.hint} {note}" if error.hint else note) from error
    if not records:
        raise InputError(f"{root} contains no clip of the data set {spec.name!r}", note)
    return records


def _records(spec: DatasetSpec, owner: str, root: Path) -> list[ClipRecord]:
    try:
        records = list(spec.build().clips(root))
    except FommctlError:
        raise
    except Exception as error:
        raise FommctlError(
            f"the data set {spec.name!r} of {owner} failed: {describe(error)}",
            "Tell the authors of the plugin; --debug shows the traceback.",
        ) from error
    for record in records:
        if not isinstance(record, ClipRecord):
            raise FommctlError(
                f"the data set {spec.name!r} of {owner} yielded {type(record).__name__}, not ClipRecord",
                "Tell the authors of the plugin: 'fommctl plugins check' shows it.",
            )
    return records


def assign_splits(records: Sequence[ClipRecord], test_fraction: float, seed: int) -> dict[str, Split]:
    """Return a split for each identity: the data set's if it has one, else by `split_of`.

    As in training, identities with only pictures are split separately from the others, so that both splits get videos.
    """
    given: dict[str, Split] = {}
    identities: set[str] = set()
    divided: set[str] = set()
    for record in records:
        identities.add(record.identity)
        split = record.split
        if split is not None and split in get_args(Split) and given.setdefault(record.identity, split) != split:
            divided.add(record.identity)
    for identity in sorted(divided):
        log.warning("the data set lists %s in both train and test; all its clips go to train", identity)
        given[identity] = "train"
    unassigned = identities - given.keys()
    moving = unassigned & {record.identity for record in records if not _is_picture(record)}
    test = split_of(moving, test_fraction, seed) | split_of(unassigned - moving, test_fraction, seed)
    return {identity: given.get(identity) or ("test" if identity in test else "train") for identity in identities}


def _is_picture(record: ClipRecord) -> bool:
    path = record.path
    return path is not None and path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()


def plan(
    records: Sequence[ClipRecord], root: Path | None, options: ClipOptions, splits: Mapping[str, Split]
) -> list[Planned]:
    """Plan the file of each clip, and find clips that cannot be made."""
    names = _unique(records)
    identities = safe_names(splits)
    clips: dict[str, list[str]] = {}
    for record, name in zip(records, names, strict=True):
        clips.setdefault(record.identity, []).append(name)
    safe = {identity: safe_names(each, keep="#") for identity, each in clips.items()}
    planned = []
    for record, name in zip(records, names, strict=True):
        source, size, problem = _source(record, root)
        split = splits[record.identity]
        planned.append(
            Planned(
                record=record,
                name=name,
                split=split,
                stem=f"{identities[record.identity]}#{safe[record.identity][name]}",
                source=source,
                source_bytes=size,
                state=_state(record, source, options),
                problem=problem,
            )
        )
    return planned


def _unique(records: Sequence[ClipRecord]) -> list[str]:
    """Return a name for each clip; names that an identity has twice get a number."""
    taken = {(record.identity, record.name) for record in records}
    seen: set[tuple[str, str]] = set()
    names = []
    for record in records:
        name, number = record.name, 1
        while (record.identity, name) in (seen if number == 1 else taken):
            number += 1
            name = f"{record.name}~{number}"
        seen.add((record.identity, name))
        taken.add((record.identity, name))
        names.append(name)
    return names


def _source(record: ClipRecord, root: Path | None) -> tuple[str | None, int | None, str | None]:
    """Return (path relative to the raw folder, bytes, problem) of the raw file."""
    if record.split not in (None, *get_args(Split)):
        return None, None, f"its split in the data set is {record.split!r}, neither train nor test"
    if (record.path is None) == (record.frames is None):
        both = "both a file and frames" if record.path is not None else "neither a file nor frames"
        return None, None, f"its record has {both}"
    if record.path is None:
        return None, None, None
    if root is None:
        return None, None, "it has a file, but no raw folder was given"
    try:
        return _inside(record.path, root)
    except (OSError, ValueError) as error:
        return None, None, f"the raw file cannot be read: {error}"


def _inside(path: Path, root: Path) -> tuple[str | None, int | None, str | None]:
    named = Path(os.path.abspath(path if path.is_absolute() or path.is_relative_to(root) else root / path))
    # Links may lead outside, as raw data may be spread over disks; paths in the data set may not.
    base = next((base for base in (os.path.abspath(root), os.path.realpath(root)) if named.is_relative_to(base)), None)
    if base is None:
        return None, None, f"its file is outside the raw folder: {path}"
    source = named.relative_to(base).as_posix()
    if not named.exists():
        return source, None, f"the raw file is missing: {source}"
    if named.is_dir():
        return source, sum(entry.stat().st_size for entry in os.scandir(named)), None
    return source, named.stat().st_size, None


def _state(record: ClipRecord, source: str | None, options: ClipOptions) -> str:
    frame = None if record.box_frame is None else [int(side) for side in record.box_frame]
    values = [source, _plain(record.start), _plain(record.end), box_numbers(record), frame, _plain(record.rate)]
    # Keypoints and deinterlacing count only where they are used, so that hashes of earlier versions stay valid.
    values += ["keypoints"] if record.keypoints is not None else []
    chosen = asdict(options)
    if options.deinterlace == "auto":
        del chosen["deinterlace"]
    return sha256(json.dumps([_STATE_VERSION, values, chosen]).encode()).hexdigest()[:16]


def box_numbers(record: ClipRecord) -> list[float] | None:
    """Return left, top, right and bottom of the record's box; None without a box."""
    box = record.box
    return None if box is None else [float(side) for side in box.sides]


def _plain(value: object) -> str | None:
    return None if value is None else str(value)


LONGEST = 100
"""Most UTF-8 bytes of one part of a name: two parts, `#`, a suffix and a temporary name's additions fit in 255."""
_HASH_LENGTH = 8


def safe_names(texts: Iterable[str], *, keep: str = "") -> Mapping[str, str]:
    """Return a part of a file name for each text: the text itself if it is safe, else a similar name with a hash.

    The names differ even on file systems that ignore case or normalise Unicode; none is empty, begins or ends with a
    dot or a space, or exceeds LONGEST bytes. They depend only on the set of texts.

    keep: `#` to allow it, as in published names after the identity (`person#video#start#end`).
    """
    forbidden = "" if keep else "#"
    wanted = {text: safe_file_name(text, forbidden=forbidden, longest=LONGEST) for text in set(texts)}
    taken = Counter(comparable_name(name) for name in wanted.values())
    return {
        text: name
        if name == unicodedata.normalize("NFC", text) and taken[comparable_name(name)] == 1
        else _marked(name, text)
        for text, name in wanted.items()
    }


def _marked(name: str, text: str) -> str:
    mark = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    return f"{safe_file_name(name, longest=LONGEST - _HASH_LENGTH - 1)}-{mark}"
