"""Converts a raw data set to the training layout, `train/ID#clip.mp4` and `test/...`, with a manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from fommctl.api.protocols import Split
from fommctl.api.specs import StageEvent
from fommctl.errors import InputError, UsageError
from fommctl.host import Host
from fommctl.machine import usable_cores
from fommctl.preprocess.clip import ClipJob, ClipOptions, WrittenClip, make_worker, source_hash
from fommctl.preprocess.config import PreprocessConfig
from fommctl.preprocess.manifest import FAILED, MANIFEST, Manifest, ManifestEntry
from fommctl.preprocess.plan import Planned, assign_splits, box_numbers, plan, read_records
from fommctl.workers import Done, run_jobs

__all__ = ["PreprocessConfig", "PreprocessResult", "run"]

log = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]
"""report(clips done, total clips)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Totals of one split, over the clips that the run covered."""

    clips: int
    identities: int
    frames: int
    hours: float
    failed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessResult:
    """The result of one run."""

    dataset: str
    output: Path
    written: int
    """Number of clips that were written."""
    kept: int
    """Number of clips that were up to date."""
    failed: tuple[Mapping[str, Any], ...]
    """`clip`, `split`, `source` and `message` of each clip that could not be made."""
    splits: Mapping[Split, Totals]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "dataset": self.dataset,
            "output": str(self.output),
            "manifest": str(self.output / MANIFEST),
            "written": self.written,
            "kept": self.kept,
            "failed": [dict(each) for each in self.failed],
            "splits": {split: asdict(totals) for split, totals in self.splits.items()},
            "warnings": list(self.warnings),
        }


def run(config: PreprocessConfig, host: Host, report: Progress | None = None) -> PreprocessResult:
    """Write the clips of a raw data set; clips that are up to date are kept.

    Clips that cannot be made are listed in the result. Raises UsageError, InputError (also if no clip at all could be
    made) or OutputError; finished clips stay, and none is half-written.
    """
    config = config.sized(host)
    spec = host.find("dataset", config.dataset)
    if config.raw is not None and _inside(config.output, config.raw):
        raise UsageError(f"the output is inside the raw folder: {config.output}", "Choose another folder with -o.")
    manifest = Manifest(config.output, spec.name)
    records = read_records(spec, host.owner("dataset", spec.name), config.raw)
    splits = assign_splits(records, config.test_fraction, config.seed)
    planned = plan(records, config.raw, _clip_options(config), splits)
    host.started(StageEvent(stage="preprocess", details={"config": config.to_json(), "clips": len(planned)}))
    with manifest:
        _rename_moved(manifest, planned, splits)
        result = _Run(config, manifest, planned[: config.limit]).all(report)
        manifest.list_failed(result.failed)
    if result.failed and not result.written and not result.kept:
        first = result.failed[0]
        raise InputError(
            f"none of the {len(result.failed)} clips could be made; {first['clip']}: {first['message']}",
            f"All are listed in {config.output / FAILED}. About the data: {spec.licence}",
        )
    host.finished(StageEvent(stage="preprocess", details=result.to_json()))
    return result


def _clip_options(config: PreprocessConfig) -> ClipOptions:
    return ClipOptions(
        size=config.side, format=config.format, fit=config.fit, audio=config.audio, deinterlace=config.deinterlace
    )


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _rename_moved(manifest: Manifest, planned: Sequence[Planned], splits: Mapping[str, Split]) -> None:
    """Rename clips of an earlier run, as splits and names depend on the set of all clips.

    This includes clips that the raw folder no longer has, so that no identity is ever in both splits.
    """
    stems = {each.key: each.stem for each in planned}
    for entry in list(manifest.entries.values()):
        path = manifest.path(entry)
        if not path.exists():
            continue
        suffix = "" if path.is_dir() else path.suffix
        stem = stems.get(entry.key, path.name.removesuffix(suffix))
        split = splits.get(entry.identity, entry.split)
        wanted = entry.model_copy(update={"file": f"{split}/{stem}{suffix}", "split": split})
        if wanted.file == entry.file:
            continue
        if manifest.path(wanted).exists():
            # Another clip has this name, at least until it is moved itself: this one is made again.
            manifest.remove(entry)
            del manifest.entries[entry.key]
        else:
            manifest.move(entry, wanted)


class _Run:
    """The work on the clips of one run."""

    def __init__(self, config: PreprocessConfig, manifest: Manifest, planned: Sequence[Planned]) -> None:
        self.config = config
        self.manifest = manifest
        self.planned = planned
        self.failed: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.warnings: list[str] = []
        self.written = 0

    def all(self, report: Progress | None) -> PreprocessResult:
        """Make the clips that are not up to date."""
        todo = [each for each in self.planned if not self._is_current(each)]
        done = kept = len(self.planned) - len(todo)
        for each in todo:
            if each.problem is not None:
                self._fail(each, each.problem)
        makeable = [each for each in todo if each.problem is None]
        done += len(todo) - len(makeable)
        for _ in self._make(makeable):
            done += 1
            if report:
                report(done, len(self.planned))
        self._warn_of_empty_splits()
        order = [self.failed[each.key] for each in self.planned if each.key in self.failed]
        return PreprocessResult(
            dataset=self.manifest.dataset,
            output=self.config.output,
            written=self.written,
            kept=kept,
            failed=tuple(order),
            splits={split: self._totals(split) for split in get_args(Split)},
            warnings=tuple(self.warnings),
        )

    def _is_current(self, each: Planned) -> bool:
        """Return whether the clip is as this run would make it; if the raw file is missing, an existing clip counts."""
        entry = self.manifest.entries.get(each.key)
        return (
            entry is not None
            and entry.state == each.state
            and each.source_bytes in (None, entry.source_bytes)
            and not (self.config.verify and self._source_changed(each, entry))
            and self.manifest.holds(entry, rehash=self.config.verify)
        )

    def _source_changed(self, each: Planned, entry: ManifestEntry) -> bool:
        """Return whether the raw file's content has changed since the clip was made; False if it was not recorded."""
        if entry.source_sha256 is None or each.source_bytes is None or each.record.path is None:
            return False
        return source_hash(each.record.path) != entry.source_sha256

    def _make(self, todo: Sequence[Planned]) -> Iterator[None]:
        suffix = "" if self.config.format == "png" else f".{self.config.format}"
        jobs = {self.manifest.work / f"{number}{suffix}": each for number, each in enumerate(todo)}
        orders = (
            ClipJob(record=each.record, target=path, options=_clip_options(self.config)) for path, each in jobs.items()
        )
        with closing(run_jobs(orders, make_worker, workers=self._workers(len(todo)))) as outcomes:
            for job, outcome in outcomes:
                each = jobs[job.target]
                if isinstance(outcome, Done):
                    self.manifest.place(job.target, self._entry(each, outcome.result, suffix))
                    self.written += 1
                    for warning in outcome.result.warnings:
                        self._warn(each, warning)
                else:
                    outcome.raise_if_disk_full()
                    self._fail(each, outcome.message)
                yield

    def _workers(self, clips: int) -> int:
        return min(usable_cores() if self.config.workers is None else self.config.workers, clips)

    def _entry(self, each: Planned, made: WrittenClip, suffix: str) -> ManifestEntry:
        record = each.record
        return ManifestEntry(
            file=f"{each.split}/{each.stem}{suffix}",
            dataset=self.manifest.dataset,
            identity=record.identity,
            name=each.name,
            split=each.split,
            frames=made.frames,
            rate=f"{made.rate.numerator}/{made.rate.denominator}",
            source=each.source,
            start=None if record.start is None else float(record.start),
            end=None if record.end is None else float(record.end),
            box=box_numbers(record),
            bytes=made.measure.bytes,
            sha256=made.measure.sha256,
            source_bytes=each.source_bytes,
            state=each.state,
            keypoints=None if made.keypoints is None else made.keypoints.sha256,
            source_sha256=made.source_sha256,
        )

    def _fail(self, each: Planned, message: str) -> None:
        clip = f"{each.record.identity}#{each.name}"
        log.debug("%s: %s", clip, message)
        self.failed[each.key] = {"clip": clip, "split": each.split, "source": each.source, "message": message}

    def _warn_of_empty_splits(self) -> None:
        for split in get_args(Split):
            own = [each for each in self.planned if each.split == split]
            if own and all(each.key in self.failed for each in own):
                text = f"the {split} split is empty: none of its {len(own)} clips could be made"
                log.warning("%s", text)
                self.warnings.append(text)

    def _warn(self, each: Planned, message: str) -> None:
        text = f"{each.stem}: {message}"
        log.warning("%s", text)
        self.warnings.append(text)

    def _totals(self, split: Split) -> Totals:
        own = [each for each in self.planned if each.split == split]
        entries = [self.manifest.entries[each.key] for each in own if each.key not in self.failed]
        seconds = sum((entry.frames / Fraction(entry.rate) for entry in entries), Fraction(0))
        return Totals(
            clips=len(entries),
            identities=len({entry.identity for entry in entries}),
            frames=sum(entry.frames for entry in entries),
            hours=round(float(seconds) / 3600, 6),
            failed=sum(each.key in self.failed for each in own),
        )
