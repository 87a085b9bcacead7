"""Reading job files (CSV, JSON Lines or YAML) into rows of fields, with their line numbers and problems."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.presets.config import MAX_BYTES, Keys, describe, did_you_mean, read_yaml

OUTPUT = "{source.stem}--{driving.stem}.mp4"
"""Default name of a result, as in `animate`."""
_SHOWN = 100
MAX_TABLE_BYTES = 16_000_000
"""Largest size of CSV and JSON Lines files; YAML has the limit of configurations."""
_HINT = "See 'fommctl batch --help' for what a file of jobs looks like."
_UTF_8 = "Save it as UTF-8; spreadsheets call that 'CSV UTF-8', or ask for it."


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why one job cannot be done."""

    where: str
    """`line 3`."""
    message: str
    hint: str | None = None
    exit_code: int = UsageError.exit_code
    """Exit code of `animate` for it."""
    number: int = 0
    """Number of the job; 0 if its row gave no job."""
    output: Path | None = None

    @classmethod
    def of(cls, where: str, error: FommctlError, number: int = 0, output: Path | None = None) -> Problem:
        """Convert an error to a problem."""
        return cls(where, error.message, error.hint, error.exit_code, number, output)

    @property
    def place(self) -> tuple[int, int]:
        """Line and number of the job, to sort by."""
        return line_of(self.where), self.number


def line_of(where: str) -> int:
    """Return the number in `line 3`; 0 for other texts."""
    match = re.search(r"\d+$", where)
    return int(match[0]) if match else 0


def problems_error(name: str, problems: Sequence[Problem]) -> UsageError:
    """Combine problems into one error, one line each.  name: name of the file."""
    hints = list(dict.fromkeys(problem.hint for problem in problems if problem.hint))
    if len(problems) == 1:
        return UsageError(f"{name}, {problems[0].where}: {problems[0].message}", hints[0] if hints else None)
    lines = [f"{problem.where}: {problem.message}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    hint = hints[0] if len(hints) == 1 else "Nothing was started; --keep-going does the other jobs."
    return UsageError("\n  ".join([f"{len(problems)} problems in {name}:", *lines]), hint)


@dataclass(frozen=True, slots=True)
class JobRow:
    """The fields of one job as written: text from CSV, JSON values from the other formats."""

    where: str
    """`line 3`."""
    fields: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    """More fields for the name of its output: `clip` and `reel` from a timeline."""


@dataclass(frozen=True, slots=True)
class JobFile:
    """The content of a job file."""

    entries: list[JobRow]
    defaults: dict[str, Any] = field(default_factory=dict)
    """Fields for jobs that lack them."""
    problems: list[Problem] = field(default_factory=list)
    """Problems of lines that cannot be read; all other lines are in `entries`."""
    fatal: list[Problem] = field(default_factory=list)
    """Problems that concern all jobs."""
    header: JobRow | None = None
    """The columns of a table, as fields without values."""
    output: str = OUTPUT
    """Template of the output for jobs without one."""


def read_job_file(path: Path) -> JobFile:
    """Read .csv, .jsonl, .ndjson, .yaml, .yml or .json.

    Raises UsageError for another suffix and for content that does not match the suffix, InputError for a missing file.
    """
    readers: dict[str, Callable[[str, str], JobFile]] = {
        ".csv": _read_csv,
        **dict.fromkeys((".jsonl", ".ndjson"), _read_lines),
        **dict.fromkeys((".yaml", ".yml", ".json"), _read_yaml),
    }
    if path == Path("-"):
        raise UsageError("jobs cannot be read from stdin", "Give a file; the status is kept next to it.")
    read = readers.get(path.suffix.lower())
    if read is None:
        known = f"Known are {', '.join(readers)}, .otio and .edl; spreadsheets save as CSV."
        raise UsageError(f"{path.name} does not have the extension of a job file", known)
    limit = MAX_BYTES if read is _read_yaml else MAX_TABLE_BYTES
    try:
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}", "Check the spelling and the folder.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"{path} cannot be read: {reason}", "Check its permissions.") from error
    if len(content) > limit:
        raise UsageError(f"{path.name} is larger than {limit:,} bytes", "Split it into several job files.")
    found = read(_text(content, path.name), path.name)
    if not found.entries and not found.problems and not found.fatal:
        raise UsageError(f"{path.name} contains no jobs", _HINT)
    return found


def _text(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{name}, line {line}: not UTF-8 text", _UTF_8) from error
    if "\0" in text:
        raise UsageError(f"{name} contains zero bytes and is not text", _UTF_8)
    return text


def _read_csv(text: str, name: str) -> JobFile:
    table = _Rows(list(io.StringIO(text, newline=""))).parsed(name)
    header = next(table, None)
    if header is None:
        return JobFile([])
    where, names = header[0], [cell.strip() for cell in header[1]]
    while names and not names[-1]:
        names.pop()
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"{name}, {where}: column names must be unique and not empty", _HINT)
    entries, problems = [], []
    for where, cells in table:
        if any(cell.strip() for cell in cells[len(names) :]):
            problem = f"{len(cells)} cells, the table has {len(names)} columns"
            problems.append(Problem(where, problem, "Put values that hold a comma into double quotes."))
            continue
        given = {column: cell.strip() for column, cell in zip(names, cells, strict=False)}
        # An empty cell means that the job lacks the field.
        entry = JobRow(where, {column: cell for column, cell in given.items() if cell})
        entries.append(entry)
    return JobFile(entries, problems=problems, header=JobRow(header[0], dict.fromkeys(names)))


class _Rows:
    """The rows of a table with their lines, without empty lines and comments."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._first = 0
        self._between = True

    def parsed(self, name: str) -> Iterator[tuple[str, list[str]]]:
        """Yield (`line 3`, cells). Raises UsageError for invalid CSV."""
        try:
            for cells in csv.reader(self._records(), delimiter=self._delimiter(), strict=True):
                where = f"line {self._first}"
                self._between = True
                if any(cell.strip() for cell in cells):
                    yield where, cells
        except csv.Error as error:
            raise UsageError(f"{name}, line {self._first}: not valid CSV: {error}", _HINT) from error

    def _records(self) -> Iterator[str]:
        """Yield lines for the CSV reader; a quoted value may span several lines, and a # in it is not a comment."""
        for number, line in enumerate(self._lines, start=1):
            if self._between and _is_empty(line):
                continue
            if self._between:
                self._first, self._between = number, False
            yield line

    def _delimiter(self) -> str:
        """Detect the separator in the header; spreadsheets write semicolons in locales with decimal commas."""
        header = next((line for line in self._lines if not _is_empty(line)), "")
        try:
            return csv.Sniffer().sniff(header, ",;\t|").delimiter
        except csv.Error:
            # One column.
            return ","


def _is_empty(line: str) -> bool:
    """Return whether a line is empty, a comment, or the `sep=;` that some spreadsheets write."""
    text = line.strip()
    return not text or text.startswith("#") or re.fullmatch(r"sep=[,;\t|]?", text) is not None


def _read_lines(text: str, name: str) -> JobFile:
    entries, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_without_doubles, parse_constant=_refuse)
            if not isinstance(value, dict):
                raise ValueError(f'expected an object such as {{"source": ...}}, found {describe(value)}')
        except RecursionError:
            problems.append(Problem(where, "nested too deeply", _HINT))
        except ValueError as error:
            reason = error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)
            problems.append(Problem(where, f"not valid JSON: {reason}", _HINT))
        else:
            entries.append(JobRow(where, value))
    return JobFile(entries, problems=problems)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the field '{next(key for key in names if names.count(key) > 1)}' is given twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a value")


def _read_yaml(text: str, name: str) -> JobFile:
    data, origins = read_yaml(text, name)
    where = _Where(origins)
    if data is None:
        return JobFile([])
    jobs: Any = data
    at: Keys = ()
    defaults: dict[str, Any] = {}
    fatal: list[Problem] = []
    if isinstance(data, dict):
        known = ("defaults", "jobs")
        fatal += [
            Problem(where((key,)), f"unknown key '{key}'{did_you_mean(key, known)}", "Known are defaults and jobs.")
            for key in data
            if key not in known
        ]
        jobs, at = data.get("jobs"), ("jobs",)
        defaults = data.get("defaults") or {}
        if not isinstance(defaults, dict):
            fatal.append(Problem(where(("defaults",)), f"defaults are {describe(defaults)}, not a mapping", _HINT))
            defaults = {}
    if not isinstance(jobs, list | None):
        fatal.append(Problem(where(at), f"the jobs are {describe(jobs)}, not a list", _HINT))
        jobs = []
    entries, problems = [], []
    for index, job in enumerate(jobs or []):
        place = where((*at, index))
        if isinstance(job, dict):
            entries.append(JobRow(place, job))
        else:
            problems.append(Problem(place, f"expected fields such as 'source: ...', found {describe(job)}", _HINT))
    return JobFile(entries, defaults, problems, fatal)


@dataclass(frozen=True, slots=True)
class _Where:
    origins: dict[Keys, str]

    def __call__(self, keys: Keys) -> str:
        """Return `line 3` for a key, or for its nearest parent with a known line."""
        found = next((self.origins[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self.origins), "")
        return f"line {found.rpartition(':')[2]}"
