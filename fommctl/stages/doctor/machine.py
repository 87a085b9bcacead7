"""Python, the processor and the memory that this process may use; no host name."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fommctl.errors import MissingError
from fommctl.machine import processor, usable_cores
from fommctl.stages.doctor.child import describe
from fommctl.stages.doctor.findings import Finding

AREA = "machine"
FEATURES = (
    ("avx2", "AVX2"),
    ("avx512f", "AVX-512"),
    ("avx512_bf16", "AVX-512 BF16"),
    ("amx_bf16", "AMX BF16"),
    ("asimd", "NEON"),
    ("sve", "SVE"),
    ("bf16", "BF16"),
    ("i8mm", "I8MM"),
)
"""Flags of Linux that say how fast convolutions can be, and what people call them."""
LITTLE_MEMORY = 2 * 2**30
"""Bytes. `animate` with the built-in model takes about 700 MB, one of 256 pixels by vox about 1.5 GB."""
_UNLIMITED = 2**60
"""cgroups of version 1 state a huge number where there is no limit."""


def python_versions() -> dict[str, str]:
    """Of fommctl, of Python and of the platform, for the report's `versions`."""
    from fommctl import __version__

    return {
        "fommctl": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }


def check_python_version(requires: str) -> Iterator[Finding]:
    """requires: `requires-python` of the distribution, such as `>=3.11,<3.14`; empty where that is not known."""
    version = platform.python_version()
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    value = f"{version}, {platform.python_implementation()}{', without a global lock' if free_threaded else ''}"
    if requires and not fits(version, requires):
        advice = f"Install fommctl into a Python {requires}: 'pythonX.Y -m venv ENV && ENV/bin/pip install fommctl'."
        yield Finding(
            area=AREA, name="Python", value=f"{value}; needed: {requires}", level="problem", advice=advice, stops=True
        )
    elif sys.maxsize < 2**32:
        advice = "Install a 64-bit Python: torch has no other wheels."
        yield Finding(area=AREA, name="Python", value=f"{value}, 32 bits", level="problem", advice=advice, stops=True)
    else:
        yield Finding(area=AREA, name="Python", value=value)


def fits(version: str, wanted: str) -> bool:
    """Whether a version is one of those wanted, by the rules of PEP 440; builds such as 2.6.0+cpu and pre-releases
    count as their version does. Raises as `packaging`."""
    SpecifierSet = packaging("specifiers").SpecifierSet
    return bool(SpecifierSet(wanted).contains(version, prereleases=True))


def packaging(module: str) -> Any:
    """A module of the package that reads and compares versions. Raises MissingError where it does not work."""
    try:
        return importlib.import_module(f"packaging.{module}")
    except Exception as error:
        hint = "Run 'pip install --force-reinstall packaging'."
        raise MissingError(f"versions cannot be compared: packaging does not load: {describe(error)}", hint) from error


def check_platform() -> Iterator[Finding]:
    """The operating system."""
    yield Finding(area=AREA, name="platform", value=platform.platform())


def check_processor() -> Iterator[Finding]:
    """Model, features and the cores that this process may use."""
    model, flags = processor()
    features = [name for flag, name in FEATURES if flag in flags]
    slow = platform.machine().lower() in ("x86_64", "amd64") and flags and "avx2" not in flags
    value = f"{model}{'; ' + ', '.join(features) if features else ''}"
    if slow:
        advice = (
            "Without AVX2 convolutions are several times slower; in a virtual machine, pass the host's CPU through."
        )
        yield Finding(area=AREA, name="processor", value=f"{value}, no AVX2", level="note", advice=advice)
    else:
        yield Finding(area=AREA, name="processor", value=value)


def check_cores() -> Iterator[Finding]:
    """How many this process may use, by its affinity and by the quota of its cgroup."""
    there, mine = os.cpu_count() or 1, usable_cores()
    quota = cgroup_cores()
    value = f"{mine} of {there}" if mine < there else f"{there}"
    if quota is not None and quota < mine:
        advice = f"Threads beyond the quota wait for each other: set OMP_NUM_THREADS={max(1, int(quota))}."
        value += f", of which the cgroup allows the time of {quota:g}"
        yield Finding(area=AREA, name="cores", value=value, level="note", advice=advice)
    else:
        yield Finding(area=AREA, name="cores", value=value)


def check_memory() -> Iterator[Finding]:
    """Of the machine and of the cgroup, with what is free."""
    total, free = memory()
    if total is None:
        yield Finding(area=AREA, name="memory", value="the system does not tell")
        return
    limit = cgroup_memory()
    value = in_bytes(total) + (f", {in_bytes(free)} free" if free is not None else "")
    if limit is not None and limit < total:
        value += f"; the cgroup allows {in_bytes(limit)}"
    if min(total, limit or total) < LITTLE_MEMORY:
        advice = "Give it at least 2 GB; until then take --batch-size 1 and a model of few pixels."
        yield Finding(area=AREA, name="memory", value=value, level="note", advice=advice)
    else:
        yield Finding(area=AREA, name="memory", value=value)


def memory(info: Path = Path("/proc/meminfo")) -> tuple[int | None, int | None]:
    """Bytes in the machine, and those that are free; None where the system does not tell."""
    try:
        text = info.read_text(encoding="ascii", errors="replace")
    except OSError:
        names = getattr(os, "sysconf_names", {})
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None), None
    found = {key: int(size) * 1024 for key, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return found.get("MemTotal"), found.get("MemAvailable")


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The lowest limit in bytes of this process's cgroup and those above it; None where there is none."""
    limits = []
    for folder in _folders(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdecimal() and int(text) < _UNLIMITED:
                limits.append(int(text))
    return min(limits, default=None)


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The lowest quota of processor time, in cores; None where there is none."""
    quotas = []
    for folder in _folders(root, own, "cpu"):
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Of this process's cgroup and of those above it, by both versions; within a container the root is its own."""
    yield from (root, root / controller)
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or controller in controllers.split(","):
            base = root / controller if controllers else root
            places = Path(path.lstrip("/")).parts
            yield from (base.joinpath(*places[:depth]) for depth in range(1, len(places) + 1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def in_bytes(size: float) -> str:
    """`512 MB`, `15.6 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TB"
