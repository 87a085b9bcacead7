"""From the clips that a data set adapter tells to what has to be written where."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

from fommctl.api.folders import PICTURE_SUFFIXES
from fommctl.api.specs import DatasetSpec
from fommctl.api.values import ClipRecord, Split
from fommctl.datasets.splits import split_of
from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.preprocess.clip import ClipOptions
from fommctl.preprocess.names import safe_names

log = logging.getLogger(__name__)
_STATE_VERSION = 1
"""Goes up when clips come out otherwise than before, so that all are made anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One clip of the raw data set and where it goes."""

    record: ClipRecord
    name: str
    """Of the clip, unique within its identity."""
    split: Split
    stem: str
    """`ID#clip`, harmless as a file name."""
    source: str | None
    """Relative to the raw folder, with forward slashes."""
    source_bytes: int | None
    """None where the raw file is missing and for made frames."""
    state: str
    """Hash of all that the clip is made with."""
    problem: str | None
    """Why it cannot be made."""

    @property
    def key(self) -> tuple[str, str]:
        return self.record.identity, self.name


def read_records(spec: DatasetSpec, owner: str, root: Path | None) -> list[ClipRecord]:
    """The clips that the adapter tells, in its order.

    root: the raw folder; None for data sets that make their frames themselves. Errors carry the note where the data
    is to be had. Raises InputError where there is no clip, UsageError where a raw folder is needed, and what the
    adapter raises.
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
        raise InputError(f"the raw folder does not exist: {root}", note)
    try:
        records = _records(spec, owner, root)
    except InputError as error:
        raise InputError(error.message, f"{error.hint} {note}" if error.hint else note) from error
    if not records:
        raise InputError(f"{root} holds no clip of the data set {spec.name!r}", note)
    return records


def _records(spec: DatasetSpec, owner: str, root: Path) -> list[ClipRecord]:
    try:
        records = list(spec.build().clips(root))
    except FommctlError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ")
        raise FommctlError(
            f"the data set {spec.name!r} of {owner} failed: {what}",
            "Tell the authors of the plugin; --debug shows the traceback.",
        ) from error
    for record in records:
        if not isinstance(record, ClipRecord):
            raise FommctlError(
                f"the data set {spec.name!r} of {owner} gave {type(record).__name__}, not a ClipRecord",
                "Tell the authors of the plugin: 'fommctl plugins check' shows it.",
            )
    return records


def assign_splits(records: Sequence[ClipRecord], test_fraction: float, seed: int) -> dict[str, Split]:
    """Each identity's split: what the data set says, else by the rule of `split_of` among those it leaves open.

    As in training, identities that are known by pictures alone are split apart from the others, so that neither split
    is left without clips that move.
    """
    given: dict[str, Split] = {}
    identities: set[str] = set()
    divided: set[str] = set()
    for record in records:
        identities.add(record.identity)
        told = record.split
        if told is not None and told in get_args(Split) and given.setdefault(record.identity, told) != told:
            divided.add(record.identity)
    for identity in sorted(divided):
        log.warning("%s is in train and test by the data set; all its clips go to train", identity)
        given[identity] = "train"
    open_ones = identities - given.keys()
    moving = open_ones & {record.identity for record in records if not _is_picture(record)}
    test = split_of(moving, test_fraction, seed) | split_of(open_ones - moving, test_fraction, seed)
    return {identity: given.get(identity) or ("test" if identity in test else "train") for identity in identities}


def _is_picture(record: ClipRecord) -> bool:
    path = record.path
    return path is not None and path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()


def plan(
    records: Sequence[ClipRecord], root: Path | None, options: ClipOptions, splits: Mapping[str, Split]
) -> list[Planned]:
    """Where every clip goes, and which cannot be made."""
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
    """The clips' names; a name that its identity has twice gets a number."""
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
    """(path relative to the raw folder, bytes, what is wrong) of the raw file."""
    if record.split not in (None, *get_args(Split)):
        return None, None, f"the data set puts it in {record.split!r}, which is neither train nor test"
    if (record.path is None) == (record.frames is None):
        both = "a file and frames" if record.path is not None else "no file and no frames"
        return None, None, f"the data set gives it {both}"
    if record.path is None:
        return None, None, None
    if root is None:
        return None, None, "it has a file, but no raw folder was named"
    try:
        return _inside(record.path, root)
    except (OSError, ValueError) as error:
        return None, None, f"the raw file cannot be read: {error}"


def _inside(path: Path, root: Path) -> tuple[str | None, int | None, str | None]:
    named = Path(os.path.abspath(path if path.is_absolute() or path.is_relative_to(root) else root / path))
    # Links may lead anywhere: whoever keeps raw data on several disks lays them. What the data set says may not.
    base = next((base for base in (os.path.abspath(root), os.path.realpath(root)) if named.is_relative_to(base)), None)
    if base is None:
        return None, None, f"its file lies outside the raw folder: {path}"
    source = named.relative_to(base).as_posix()
    if not named.exists():
        return source, None, f"the raw file is missing: {source}"
    if named.is_dir():
        return source, sum(entry.stat().st_size for entry in os.scandir(named)), None
    return source, named.stat().st_size, None


def _state(record: ClipRecord, source: str | None, options: ClipOptions) -> str:
    frame = None if record.box_frame is None else [int(side) for side in record.box_frame]
    told = [source, _plain(record.start), _plain(record.end), box_numbers(record), frame, _plain(record.rate)]
    # Nothing is added for clips without: theirs are the same as before.
    told += ["keypoints"] if record.keypoints is not None else []
    made = asdict(options)
    if options.deinterlace == "auto":
        # Clips of earlier versions, nearly all of which are the same, are kept.
        del made["deinterlace"]
    return sha256(json.dumps([_STATE_VERSION, told, made]).encode()).hexdigest()[:16]


def box_numbers(record: ClipRecord) -> list[float] | None:
    """Left, top, right and bottom."""
    box = record.box
    return None if box is None else [float(side) for side in (box.left, box.top, box.right, box.bottom)]


def _plain(value: object) -> str | None:
    return None if value is None else str(value)
