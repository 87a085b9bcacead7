"""The report: one row per check, without private data."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fommctl.errors import MissingError

Level = Literal["ok", "note", "problem"]
AREAS = ("machine", "packages", "extras", "devices", "codecs", "plugins", "weights", "disk", "environment", "trial")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_TOKEN = re.compile(r"\b(hf_|ghp_|github_pat_|sk-)[A-Za-z0-9_-]{16,}")
_COMMON = frozenset({"localhost", "root", "user", "home", "main", "linux", "python", "torch", "fommctl", "cuda"})
"""Names of machines and users that identify nobody, and that occur as plain words."""


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one check."""

    name: str
    value: str
    """The state that was found, in a few words."""
    level: Level = "ok"
    """`note`: worth knowing, or slower than possible; `problem`: something does not work."""
    advice: str | None = None
    """Remedy in one line, if possible a command."""
    stops: bool = False
    """Whether the problem keeps `fommctl animate` with the built-in model from working."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Machine-readable values; those of devices and versions have their own keys in the report."""
    area: str = ""
    """Part of the report, one of AREAS."""


def problem(name: str, value: str, advice: str | None, *, stops: bool = False) -> Row:
    """Return a row for something that does not work."""
    return Row(name, value, "problem", advice, stops)


def note(name: str, value: str, advice: str | None) -> Row:
    """Return a row of level `note` with this advice, or of level `ok` without advice."""
    return Row(name, value, "note" if advice else "ok", advice)


@dataclass(frozen=True, slots=True)
class Report:
    """All rows, ordered by area, and the versions that a bug report needs."""

    rows: tuple[Row, ...]
    versions: Mapping[str, str]

    @property
    def problems(self) -> tuple[Row, ...]:
        """Rows of level `problem`, those that stop `animate` first."""
        found = [row for row in self.rows if row.level == "problem"]
        return tuple(sorted(found, key=lambda row: not row.stops))

    @property
    def exit_code(self) -> int:
        """5 (something is missing) if a problem stops `animate`, else 0."""
        return MissingError.exit_code if any(row.stops for row in self.problems) else 0

    @property
    def verdict(self) -> str:
        """Summary in one sentence."""
        count, stopping = len(self.problems), sum(row.stops for row in self.problems)
        if not count:
            return "No problems: 'fommctl animate' works here."
        counted = f"{count} problem{'s' if count > 1 else ''}"
        if not stopping:
            return f"{counted}; 'fommctl animate' works here with the built-in model."
        which = f", {stopping} of which" if stopping < count else ""
        return f"{counted}{which} {'keeps' if stopping == 1 else 'keep'} 'fommctl animate' from working here."

    def to_json(self) -> dict[str, Any]:
        """Return the values for --json."""
        names = ("area", "name", "value", "level", "advice", "stops")
        return {
            "ok": self.exit_code == 0,
            "problems": len(self.problems),
            "checks": [{name: getattr(row, name) for name in names} for row in self.rows],
            "versions": dict(self.versions),
            "devices": [dict(row.facts) for row in self.rows if row.area == "devices" and row.facts],
        }


def redactor() -> Callable[[Row], Row]:
    """Return a function that removes home folders, user and host names, logins in URLs and tokens from a row, because
    reports are posted in public issues."""
    homes, names = {os.path.expanduser("~")}, set()
    # A container's user may have neither a name nor a home.
    with contextlib.suppress(OSError, RuntimeError):
        homes.add(str(Path("~").expanduser().resolve()))
    with contextlib.suppress(OSError, KeyError, ImportError):
        names.add(getpass.getuser())
    with contextlib.suppress(OSError):
        names |= {socket.gethostname(), socket.gethostname().split(".")[0]}
    homes = {home for home in homes if home.startswith(("/", "\\")) and len(home) > 1}
    names = {name for name in names if len(name) > 2 and name.lower() not in _COMMON}

    def redacted(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: redacted(each) for key, each in value.items()}
        if not isinstance(value, str):
            return value
        for home in sorted(homes, key=len, reverse=True):
            value = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value)
        for name in names:
            value = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "NAME", value)
        return _TOKEN.sub(r"\1...", _LOGIN.sub("", value))

    return lambda row: replace(
        row,
        name=redacted(row.name),
        value=redacted(row.value),
        advice=redacted(row.advice),
        facts=redacted(row.facts),
    )


def in_bytes(size: float) -> str:
    """Format a number of bytes, as `512 MB` or `15.6 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TB"
