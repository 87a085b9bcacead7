"""The processor of this machine and how many of its cores this process may use."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def processor(info: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Return the processor's model and its features by Linux's names; no features where the system has no /proc."""
    try:
        text = info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _model_elsewhere() or platform.machine() or "unknown", frozenset()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine(), frozenset(flags[1].split() if flags else ())


def _model_elsewhere() -> str:
    if sys.platform != "darwin":
        return platform.processor()
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    return done.stdout.strip()


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity where the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
