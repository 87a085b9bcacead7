"""What the doctor found: one line each, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fommctl.errors import MissingError

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    area: str
    name: str
    value: str
    """What was found, in a few words."""
    level: Level = "ok"
    """`note`: worth knowing, or slower than it could be; `problem`: something that does not work."""
    advice: str | None = None
    """What to do about it, one line, with a command where there is one."""
    stops: bool = False
    """A problem that keeps `fommctl animate` with the built-in model from working."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All findings, in the order of their areas, and the facts that a bug report needs most."""

    findings: tuple[Finding, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of fommctl, Python, the platform and every dependency that is installed."""
    devices: Sequence[Mapping[str, Any]] = ()
    """What can compute: name, kind, memory in bytes, how much faster which precision is, what `auto` chooses."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What does not work; first what stops `animate` with the built-in model."""
        found = [finding for finding in self.findings if finding.level == "problem"]
        return tuple(sorted(found, key=lambda finding: not finding.stops))

    @property
    def ok(self) -> bool:
        """Whether nothing stops `animate` with the built-in model."""
        return not any(finding.stops for finding in self.problems)

    @property
    def exit_code(self) -> int:
        """0, or that of something missing (5)."""
        return 0 if self.ok else MissingError.exit_code

    def to_json(self) -> dict[str, Any]:
        """For --json; holds neither NaN nor infinity."""
        names = ("area", "name", "value", "level", "advice", "stops")
        return {
            "ok": self.ok,
            "problems": len(self.problems),
            "checks": [{name: getattr(finding, name) for name in names} for finding in self.findings],
            "versions": dict(self.versions),
            "devices": [dict(device) for device in self.devices],
        }
