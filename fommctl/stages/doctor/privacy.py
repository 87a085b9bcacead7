"""Nothing that tells who or where the user is: reports are pasted into public issues."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fommctl.stages.doctor.findings import Finding

_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_TOKEN = re.compile(r"\b(hf_|ghp_|github_pat_|sk-)[A-Za-z0-9_-]{16,}")
_COMMON = frozenset({"localhost", "root", "user", "home", "main", "linux", "python", "torch", "fommctl", "cuda"})
"""Names of machines and users that say nothing, and that messages hold as words."""


@dataclass(frozen=True)
class Veil:
    """Hides home folders, the user's name, the machine's name, logins in addresses and tokens."""

    homes: tuple[str, ...]
    names: tuple[str, ...]
    """Hidden where they stand as a whole word."""

    @classmethod
    def of_this_user(cls) -> Veil:
        """By what the system tells; what it does not tell is not hidden."""
        homes = {os.path.expanduser("~"), *_told(lambda: str(Path("~").expanduser().resolve()))}
        names = {
            *_told(getpass.getuser),
            *_told(socket.gethostname),
            *_told(lambda: socket.gethostname().split(".")[0]),
        }
        return cls(
            tuple(sorted((home for home in homes if len(home) > 1 and home.startswith(("/", "\\"))), key=len)[::-1]),
            tuple(sorted(name for name in names if len(name) > 2 and name.lower() not in _COMMON)),
        )

    def text(self, text: str) -> str:
        """The text without them."""
        for home in self.homes:
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        for name in self.names:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "NAME", text)
        return _TOKEN.sub(r"\1...", _LOGIN.sub("", text))

    def finding(self, finding: Finding) -> Finding:
        """The finding without them."""
        advice = None if finding.advice is None else self.text(finding.advice)
        return replace(finding, name=self.text(finding.name), value=self.text(finding.value), advice=advice)

    def data(self, data: Any) -> Any:
        """JSON values without them."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {key: self.data(value) for key, value in data.items()}
        return [self.data(value) for value in data] if isinstance(data, list | tuple) else data


def _told(ask: Callable[[], str]) -> list[str]:
    """The answer, if there is one: a container's user may have neither name nor home."""
    try:
        return [ask()]
    except (OSError, KeyError, RuntimeError, ImportError):
        return []
