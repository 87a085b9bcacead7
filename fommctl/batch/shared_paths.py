"""Files that two jobs of a batch would both write, or that one writes and another reads."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fommctl.batch.jobs import Job
from fommctl.batch.problems import Problem
from fommctl.media.output_paths import is_pattern, number_of

_NO_DOUBLES = "Give every job an output of its own; {source.stem}, {driving.stem} and {number} tell them apart."
_NO_CHAINS = "Jobs run in any order, at once or on several machines: make one file after the other."


def shared_paths(jobs: Sequence[Job]) -> Iterator[Problem]:
    """Outputs that two jobs have in common, and those that are an input of a job.

    Names that differ in case only, and links to one file, count as the same.
    """
    inputs, folders = _inputs(jobs)
    outputs: dict[str, Job] = {}
    within: dict[str, Job] = {}
    for job in jobs:
        output = job.output
        names, around = list(_output_names(output)), list(_patterns_around(output))
        first = next((outputs[name] for name in names if name in outputs), None)
        mixed = [outputs.get(name) for name in around] + [within.get(name) for name in names]
        meets = first or next(filter(None, mixed), None)
        if meets is not None:
            place = "of this line" if meets.where == job.where else f"of {meets.where}"
            how = "the frames mix with those" if first is None else "the output is also that"
            yield Problem(job.where, f"{how} {place}: {output}", _NO_DOUBLES, job=job)
            continue
        outputs.update(dict.fromkeys(names, job))
        within.update(dict.fromkeys(around, job))
        reader = next((inputs[name] for name in names if name in inputs), None)
        if reader is None and is_pattern(output):
            reader = _reader_of_frames(output, inputs, folders)
        if reader is not None:
            place = "this job" if reader is job else reader.where
            yield Problem(job.where, f"the output is an input of {place}: {output}", _NO_CHAINS, job=job)


def _inputs(jobs: Sequence[Job]) -> tuple[dict[str, Job], dict[str, list[tuple[Path, Job]]]]:
    """Who reads what, by name, and by the folder that it lies in."""
    inputs: dict[str, Job] = {}
    folders: dict[str, list[tuple[Path, Job]]] = {}
    read = {path: job for job in reversed(jobs) for path in (job.config.source, job.config.driving, *job.config.views)}
    for path, reader in read.items():
        for name in _output_names(path):
            inputs.setdefault(name, reader)
        inputs.setdefault(_same(path), reader)
        folders.setdefault(_same(path.parent), []).append((path, reader))
    return inputs, folders


def _reader_of_frames(output: Path, inputs: dict[str, Job], folders: dict[str, list[tuple[Path, Job]]]) -> Job | None:
    """Who reads the folder that frames are to go to, or a picture that would be one of them."""
    folder = _same(output.parent)
    if folder in inputs:
        return inputs[folder]
    beside = folders.get(folder, [])
    return next((job for path, job in beside if number_of(output, path.name) is not None), None)


def _output_names(path: Path) -> Iterator[str]:
    """By what a file is compared with others: its name, and the file itself where there is one."""
    if is_pattern(path):
        # Patterns that differ in their digits only would mix.
        yield _same(path.parent / re.sub(r"%0?\d*d", "#", path.name))
        return
    yield _same(path)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    yield f"{status.st_dev}:{status.st_ino}"


def _patterns_around(path: Path) -> Iterator[str]:
    """Patterns that could write the frames of this one too: `a%d.png` those of `a12%d.png`."""
    if is_pattern(path):
        before, number_on = re.findall(r"^((?:[^%]|%%)*)(.*)$", path.name, re.DOTALL)[0]
        while before[-1:].isdigit():
            before = before[:-1]
            yield from _output_names(path.with_name(before + number_on))


def _same(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()
