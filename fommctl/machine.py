"""The processor, the memory and the network that this process may use. Imports the standard library only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_CPU_INFO, _MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED = 2**60
"""A cgroup of version 1 without a limit states a larger number."""


def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's model and its features under Linux's names; no features where the system has no list."""
    text = _read(_CPU_INFO)
    if not text:
        return _model_elsewhere() or platform.machine() or "unknown", frozenset()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine(), frozenset(flags[1].split() if flags else ())


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quota() -> float | None:
    """Return the lowest quota of processor time of this process's cgroups, in cores; None without one."""
    quotas = []
    for folder in _cgroups("cpu"):
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory() -> tuple[int | None, int | None]:
    """Return the bytes in the machine and the bytes free; None for what the system does not state."""
    text = _read(_MEMORY_INFO)
    if not text:
        names = getattr(os, "sysconf_names", {})
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None), None
    found = {key: int(size) * 1024 for key, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return found.get("MemTotal"), found.get("MemAvailable")


def memory_limit() -> int | None:
    """Return the lowest memory limit of this process's cgroups in bytes; None without one."""
    texts = (_read(folder / name) for folder in _cgroups("memory") for name in ("memory.max", "memory.limit_in_bytes"))
    return min((int(text) for text in texts if text.isdecimal() and int(text) < _UNLIMITED), default=None)


def _model_elsewhere() -> str:
    if sys.platform != "darwin":
        return platform.processor()
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of its parents, of versions 1 and 2."""
    yield from (_CGROUPS, _CGROUPS / controller)
    for line in _read(_OWN_CGROUP).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or controller in controllers.split(","):
            base = _CGROUPS / controller if controllers else _CGROUPS
            parts = Path(path.lstrip("/")).parts
            yield from (base.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def offline() -> bool:
    """Return whether FOMMCTL_OFFLINE forbids the network; `0`, `false`, `no`, `off` and nothing do not."""
    return os.environ.get("FOMMCTL_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")
