"""Checks of the machine: Python, processor, memory, and the environment variables that change what fommctl does."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from fommctl import machine
from fommctl.doctor.packages import fits
from fommctl.doctor.report import Level, Row, in_bytes

FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
    "i8mm": "I8MM",
}
"""Linux's flags that decide the speed of convolutions, and their usual names."""
LITTLE_MEMORY = 2 * 2**30
"""Bytes. `animate` with the built-in model takes about 700 MB, vox of 256 pixels about 1.5 GB."""
VARIABLES = {
    "FOMMCTL_HOME": "where models and caches are kept",
    "FOMMCTL_OFFLINE": "forbids downloads, unless it is 0, false, no or off",
    "FOMMCTL_PLUGINS": "the only plugins to load",
    "OMP_NUM_THREADS": "threads of torch on the CPU",
    "CUDA_VISIBLE_DEVICES": "the GPUs that torch sees",
    "TORCH_HOME": "where torch hub keeps weights",
    "XDG_DATA_HOME": "where models are kept without FOMMCTL_HOME",
    "TMPDIR": "where temporary files go",
    "HF_ENDPOINT": "another server than huggingface.co",
    "PYTHONPATH": "searched before installed packages",
    "LD_PRELOAD": "libraries loaded before all others",
    "LD_LIBRARY_PATH": "searched before the libraries inside wheels",
    "SSL_CERT_FILE": "certificates that downloads trust",
    "RANK": "makes this process one of several training processes",
}
SECRET = frozenset(
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"]
)
"""Variables whose value is never shown."""


def check_machine() -> Iterator[Row]:
    """Check Python, the operating system, the processor and the memory."""
    yield _python()
    yield Row(area="machine", name="platform", value=platform.platform())
    model, flags = machine.processor()
    value = "; ".join(filter(None, [model, ", ".join(name for flag, name in FEATURES.items() if flag in flags)]))
    if platform.machine().lower() in ("x86_64", "amd64") and flags and "avx2" not in flags:
        advice = (
            "Convolutions are several times slower without AVX2; in a virtual machine, pass the host's CPU through."
        )
        yield Row(area="machine", name="processor", value=f"{value}, no AVX2", level="note", advice=advice)
    else:
        yield Row(area="machine", name="processor", value=value)
    total, usable, quota = os.cpu_count() or 1, machine.usable_cores(), machine.core_quota()
    value = f"{usable} of {total}" if usable < total else f"{total}"
    if quota is not None and quota < usable:
        advice = f"More threads than the quota wait for each other: set OMP_NUM_THREADS={max(1, int(quota))}."
        value += f", limited by the cgroup to {quota:g}"
        yield Row(area="machine", name="cores", value=value, level="note", advice=advice)
    else:
        yield Row(area="machine", name="cores", value=value)
    yield _memory()


def check_environment() -> Iterator[Row]:
    """Check the variables that are set: their effect, and values that make no sense or slow fommctl down."""
    rows = [_variable(name, value) for name, value in sorted(os.environ.items())]
    found = [row for row in rows if row is not None]
    yield from found or [Row(area="environment", name="variables", value="none that fommctl reads is set")]


def _python() -> Row:
    declared = metadata.metadata("fommctl").get_all("Requires-Python") or [""]
    version = platform.python_version()
    value = f"{version}, {platform.python_implementation()}"
    advice: str | None = None
    if not fits(version, declared[0]):
        value += f"; needed: {declared[0]}"
        advice = f"Install fommctl with a Python {declared[0]}: 'pythonX.Y -m venv ENV && ENV/bin/pip install fommctl'."
    elif sys.maxsize < 2**32:
        value, advice = f"{value}, 32 bits", "Install a 64-bit Python: torch has no other wheels."
    level: Level = "problem" if advice else "ok"
    return Row(area="machine", name="Python", value=value, level=level, advice=advice, stops=advice is not None)


def _memory() -> Row:
    (total, free), limit = machine.memory(), machine.memory_limit()
    if total is None:
        return Row(area="machine", name="memory", value="not stated by the system")
    value = in_bytes(total) + (f", {in_bytes(free)} free" if free is not None else "")
    if limit is not None and limit < total:
        value += f"; the cgroup allows {in_bytes(limit)}"
    if min(total, limit or total) >= LITTLE_MEMORY:
        return Row(area="machine", name="memory", value=value)
    advice = "Provide at least 2 GB; until then use --batch-size 1 and a small model."
    return Row(area="machine", name="memory", value=value, level="note", advice=advice)


def _variable(name: str, value: str) -> Row | None:
    if name in SECRET:
        return Row(area="environment", name=name, value="set (not shown)")
    if name not in VARIABLES:
        if not name.startswith("FOMMCTL_"):
            return None
        known = f"fommctl reads {', '.join(each for each in VARIABLES if each.startswith('FOMMCTL_'))}."
        return Row(area="environment", name=name, value="unknown to fommctl", level="note", advice=known)
    shown = value if len(value) <= 120 else f"{value[:120]}..."
    shown = shown if shown.strip() == shown != "" else repr(shown)
    advice = _advice(name, value)
    level: Level = "note" if advice else "ok"
    return Row(area="environment", name=name, value=f"{shown}: {VARIABLES[name]}", level=level, advice=advice)


def _advice(name: str, value: str) -> str | None:
    if name == "OMP_NUM_THREADS":
        first, cores = value.split(",")[0].strip(), machine.usable_cores()
        if not first.isdecimal() or int(first) == 0:
            return "Not a number of threads, and ignored: set it to the number of cores, or unset it."
        if int(first) > cores:
            return f"More threads than the {cores} cores wait for each other: lower it, or unset it."
        return f"{cores} cores may be used: raise it, or unset it." if int(first) < cores else None
    if name == "CUDA_VISIBLE_DEVICES" and value.strip() in ("", "-1", "NoDevFiles"):
        return "It hides all GPUs; unset it to use them."
    return {
        "RANK": "Unset it outside of torchrun: 'fommctl train' would wait for other processes.",
        "PYTHONPATH": "Unset it where a package is found in the wrong place.",
        "LD_PRELOAD": "Unset it where a library crashes at import.",
    }.get(name)
