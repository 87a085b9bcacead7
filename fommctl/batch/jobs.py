"""Building typed jobs from a job file, with defaults, patterns and options."""

from __future__ import annotations

import glob
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.job_files import JobFile, JobRow, Problem
from fommctl.errors import FommctlError, InputError, ProblemsError, UsageError
from fommctl.host import Host
from fommctl.media.sequences import counting_order, is_sequence
from fommctl.models import registry
from fommctl.models.loading import file_stem
from fommctl.options import OptionField, field_named, option_fields
from fommctl.presets.config import describe, did_you_mean
from fommctl.presets.preset import preset_specs

T = TypeVar("T")
_LONGEST_PATH = 4096
"""Longest path in characters, the limit of Linux; searching for a pattern takes time quadratic in it."""
_NOT_NAMED = ("source", "driving", "output", "views", "sets", "sign", "sign_key")
"""Fields that cannot be used in the name of an output."""
MAX_MATCHES = 100_000
"""Most matches of one pattern, and jobs of one batch."""
_PARTS = ("stem", "name", "suffix", "parent", "folder")
_WIDTH = re.compile(r"0?\d{0,2}d?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job: a line of a job file, or one match of its patterns. Can be pickled."""

    number: int
    """Number in the whole batch, from 1."""
    where: str
    """`line 3`."""
    config: AnimateConfig
    """Configuration with absolute paths, and an output."""
    choice: ModelChoice

    def __post_init__(self) -> None:
        if self.config.output is None:
            raise UsageError(f"{self.where}: the job has no output", "Give it one.")

    @property
    def output(self) -> Path:
        """Absolute path of the result."""
        return self.config.result_path


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A field as written, and the base folder of relative paths in it."""

    value: Any
    base: Path


@dataclass(frozen=True, slots=True)
class ParsedJobs:
    """The jobs of a file in order, and the problems of those that could not be built."""

    jobs: list[Job]
    problems: list[Problem]
    """Problems of single jobs."""
    fatal: list[Problem]
    """Problems that concern all jobs."""


def known_fields() -> tuple[str, ...]:
    """Return the names of all fields that a job may have."""
    return (*option_fields(AnimateConfig), *option_fields(ModelChoice))


def canonical(name: str) -> str:
    """Normalise the name of a field: `driving-crop` to `driving_crop`, `Source` to `source`, `view` to `views`."""
    field = field_named(AnimateConfig, name) or field_named(ModelChoice, name)
    return name.strip().replace("-", "_").lower() if field is None else field.name


def build(file: JobFile, path: Path, command: Mapping[str, Any], host: Host) -> ParsedJobs:
    """Build the jobs of the file at `path`.

    command: fields from the command line, for jobs that lack them; relative paths in them are relative to the current
    folder. Problems are those of the file, of fields that do not exist or cannot be read, and of patterns.
    """
    folder = absolute(path).parent
    problems, fatal = list(file.problems), list(file.fatal)
    entries = file.entries
    for where, values in {"defaults": file.defaults, "the command line": command}.items():
        fatal += [Problem(where, text, hint) for text, hint in _unknown(values)]
    if file.header is not None and (unknown := _unknown(file.header.fields)):
        # Once, not for each line of the table.
        fatal += [Problem(file.header.where, text, hint) for text, hint in unknown]
        entries = []
    defaults = {
        **_given(file.defaults, folder),
        **_given(command, Path.cwd()),
    }
    registered = frozenset((*registry.entries(host), *preset_specs(host)))
    jobs: list[Job] = []
    for entry in entries:
        if len(jobs) > MAX_MATCHES:
            raise UsageError(f"more than {MAX_MATCHES:,} jobs", "Split them into several files.")
        unknown = _unknown(entry.fields)
        problems += [Problem(entry.where, text, hint) for text, hint in unknown]
        if not unknown:
            given = {**defaults, **_given(entry.fields, folder)}
            _Builder(entry, given, FieldValue(file.output, folder), registered, jobs, problems).build()
    return ParsedJobs(jobs, problems, fatal)


def _given(values: Mapping[str, Any], base: Path) -> dict[str, FieldValue]:
    known = known_fields()
    return {
        canonical(name): FieldValue(value, base)
        for name, value in values.items()
        if value is not None and canonical(name) in known
    }


def _unknown(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return message and hint for each unknown field, and for each field that is given by two names."""
    known = known_fields()
    shown = "A job has source, driving, output and the options of 'fommctl animate --help'."
    found = [
        (f"unknown field '{name}'{did_you_mean(canonical(name), known)}", shown)
        for name in values
        if canonical(name) not in known
    ]
    names = [canonical(name) for name in values]
    doubles = dict.fromkeys(name for name in names if names.count(name) > 1)
    return [*found, *((f"the field '{name}' is given twice", "Give it once.") for name in doubles)]


@dataclass(slots=True)
class _Builder:
    """Builds the jobs of one entry, and adds them to `jobs` or their problems to `problems`."""

    entry: JobRow
    given: Mapping[str, FieldValue]
    output: FieldValue
    """Template of the output, if the entry has none."""
    registered: frozenset[str]
    jobs: list[Job]
    problems: list[Problem]

    def build(self) -> None:
        """Add all jobs of the entry, or all of its problems."""
        before = len(self.problems)
        texts = {name: self._text(name) for name in ("source", "driving")}
        sources, drivings = ([] if text is None else self._expanded(text) for text in texts.values())
        options = self._read(AnimateConfig, source=Path(), driving=Path())
        choice = self._read(ModelChoice)
        template = self._output()
        if len(self.problems) > before or options is None or choice is None:
            return
        if len(sources) * len(drivings) + len(self.jobs) > MAX_MATCHES:
            raise UsageError(
                f"{self.entry.where}: more than {MAX_MATCHES:,} jobs", "Split them into several job files."
            )
        for source in sources:
            for driving in drivings:
                self._add(replace(options, source=source, driving=driving), template, choice)

    def _add(self, config: AnimateConfig, template: FieldValue, choice: ModelChoice) -> None:
        number = len(self.jobs) + 1
        try:
            name = fill(str(template.value), self._names(number, config, choice))
        except FommctlError as error:
            self.problems.append(Problem.of(self.entry.where, error))
            return
        config = replace(config, output=absolute(template.base / os.path.expanduser(name)))
        self.jobs.append(Job(number=number, where=self.entry.where, config=config, choice=choice))

    def _names(self, number: int, config: AnimateConfig, choice: ModelChoice) -> dict[str, str | int]:
        """Return the fields for the name of an output."""
        values: dict[str, str | int] = {"number": number, **self.entry.names}
        values |= {**path_fields("source", config.source), **path_fields("driving", config.driving)}
        for name in known_fields():
            if name in _NOT_NAMED:
                continue
            value = getattr(config, name, getattr(choice, name, None)) if name in self.given else None
            if isinstance(value, Path):
                value = file_stem(value)
            elif name in ("model", "preset") and isinstance(value, str) and os.sep in value:
                value = Path(file_stem(Path(value))).stem
            values[name] = value if type(value) is int else "auto" if value is None else str(value)
        return values

    def _text(self, name: str) -> FieldValue | None:
        """Return a path as written; None, with a problem, if it is not a text or missing."""
        given = self.given.get(name)
        if given is None or given.value == "":
            self._problem(f"the job has no {name}", "Every job needs source and driving.")
        elif not isinstance(given.value, str):
            self._problem(f"{name} is {describe(given.value)}", "Give a path; put a name like 12 into quotes.")
        elif any(character < " " for character in given.value) or not _encodable(given.value):
            self._problem(f"{name} contains a character that is not text", "Type the path again.")
        elif len(given.value) > _LONGEST_PATH:
            self._problem(f"{name} has {len(given.value):,} characters", f"Paths have at most {_LONGEST_PATH:,}.")
        else:
            return given
        return None

    def _expanded(self, given: FieldValue) -> list[Path]:
        try:
            return expand(given.value, given.base)
        except (FommctlError, OSError, ValueError) as error:
            known = error if isinstance(error, FommctlError) else UsageError(str(error).lower())
            self.problems.append(Problem.of(self.entry.where, known))
            return []

    def _output(self) -> FieldValue:
        if "output" in self.given:
            found = self._text("output")
            if found is not None:
                return found
        return self.output

    def _read(self, kind: type[T], **others: Path) -> T | None:
        """Read the job's fields into a configuration class; None, with problems, if that fails.  others: fields that
        follow from patterns and names."""
        decided = (*others, "output")
        values = {
            name: self._located(field, self.given[name])
            for name, field in option_fields(kind).items()
            if name in self.given and name not in decided
        }
        try:
            return kind(**others, **values)
        except ProblemsError as error:
            self.problems += [Problem.of(self.entry.where, each) for each in error.problems]
        except UsageError as error:
            self.problems.append(Problem.of(self.entry.where, error))
        return None

    def _located(self, field: OptionField, given: FieldValue) -> Any:
        """Convert a value for the configuration class: lists for fields with several values, absolute paths."""
        value = _several(given.value) if field.many else given.value
        if field.name in ("model", "preset") and isinstance(value, str):
            return self._named(value, given.base)
        if field.kind is not Path:
            return value
        if field.many and isinstance(value, list):
            return [_absolute(given.base, each) for each in value]
        return _absolute(given.base, value)

    def _named(self, text: str, base: Path) -> str:
        """Return a known name unchanged, and anything else as the absolute path of a file."""
        path = base / os.path.expanduser(text)
        names_a_file = Path(text).suffix or Path(text).name != text or path.is_file()
        return str(absolute(path)) if text not in self.registered and names_a_file else text

    def _problem(self, message: str, hint: str | None) -> None:
        self.problems.append(Problem(self.entry.where, message, hint))


def _absolute(base: Path, value: Any) -> Any:
    return absolute(base / os.path.expanduser(value)) if isinstance(value, str) else value


def _encodable(text: str) -> bool:
    """Return whether this can be a file name; names with lone surrogates cannot be encoded."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _several(value: Any) -> Any:
    """Convert a value to a list; text is split at semicolons, because a table's cell holds only text."""
    return [part.strip() for part in value.split(";") if part.strip()] if isinstance(value, str) else value


def expand(text: str, base: Path) -> list[Path]:
    """Expand a path with wildcards to absolute paths in natural order, without hidden files.

    text: a path relative to `base`, which may contain *, ?, [abc] or ** (any folders). The name of an existing file is
    not a pattern; the number of a sequence of frames (`%05d`) is kept. Raises InputError if nothing matches.
    """
    text = os.path.expanduser(text)
    path = base / text
    if not glob.has_magic(text) or os.path.lexists(path):
        return [absolute(path)]
    # The frames of a sequence are one input, but wildcards may match several folders.
    frames = path.name if is_sequence(path) and not glob.has_magic(path.name) else ""
    found = []
    for name in glob.iglob(os.path.dirname(text) if frames else text, root_dir=base, recursive=True):
        found.append(absolute(base / name / frames))
        if len(found) > MAX_MATCHES:
            raise InputError(f"the pattern '{text}' matches more than {MAX_MATCHES:,} files", "Give a narrower one.")
    if not found:
        raise InputError(f"no file matches the pattern '{text}'", "In a job file, paths are relative to its folder.")
    return sorted(found, key=lambda each: [counting_order(Path(part)) for part in each.parts])


def absolute(path: Path) -> Path:
    """Return the absolute path without `..` and `.`; links are not resolved."""
    return Path(os.path.abspath(path))


def path_fields(name: str, path: Path) -> dict[str, str]:
    """Return the fields `source.stem` and so on: stem, name, suffix, parent (path of the folder) and folder (its name).

    A sequence of frames is named after its folder.
    """
    named = path.parent if is_sequence(path) else path
    values = (named.stem, named.name, named.suffix, str(named.parent), named.parent.name)
    return {f"{name}.{part}": value for part, value in zip(_PARTS, values, strict=True)}


def fill(template: str, fields: Mapping[str, str | int]) -> str:
    """Fill in a template such as `{source.stem}_{number:03}.mov`; `{{` is a brace.

    No other syntax of Python's formats is supported. Raises UsageError for an unknown field or another format.
    """
    filled = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"the output '{template}': {str(error).lower()}", "Write a literal brace as {{ or }}."
        ) from error
    for literal, name, width, conversion in parts:
        filled.append(literal)
        if name is not None:
            filled.append(_value(template, name.strip(), width or "", conversion, fields))
    return "".join(filled)


def _value(template: str, name: str, width: str, conversion: str | None, fields: Mapping[str, str | int]) -> str:
    if name not in fields:
        known = ", ".join(fields)
        raise UsageError(
            f"the output '{template}' has an unknown field '{name}'{did_you_mean(name, fields)}", f"Known are {known}."
        )
    value = fields[name]
    if conversion or (width and not (isinstance(value, int) and _WIDTH.fullmatch(width))):
        raise UsageError(
            f"the output '{template}': '{name}' cannot be formatted like this", "Only numbers can: {number:03} is 007."
        )
    if isinstance(value, int):
        return format(value, width)
    if name.endswith(".parent"):
        return value
    # A value becomes part of a name, and must not lead to another folder.
    return "_" if value in (".", "..") else re.sub(r"[/\\\0]", "_", value)
