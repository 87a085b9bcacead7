"""Checks of the machine: Python, processor, memory, environment variables and folders. Nothing is changed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from fommctl import machine
from fommctl.doctor.packages import fits
from fommctl.doctor.report import Level, Row, in_bytes, note, problem

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
        advice = "Convolutions are several times slower without AVX2; a virtual machine may hide the host's."
        yield note("machine", "processor", f"{value}, no AVX2", advice)
    else:
        yield note("machine", "processor", value, None)
    total, usable, quota = os.cpu_count() or 1, machine.usable_cores(), machine.core_quota()
    value = f"{usable} of {total}" if usable < total else f"{total}"
    if quota is not None and quota < usable:
        advice = f"More threads than the quota wait for each other: set OMP_NUM_THREADS={max(1, int(quota))}."
        value += f", limited by the cgroup to {quota:g}"
        yield note("machine", "cores", value, advice)
    else:
        yield note("machine", "cores", value, None)
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
    if advice:
        return problem("machine", "Python", value, advice, stops=True)
    return note("machine", "Python", value, None)


def _memory() -> Row:
    (total, free), limit = machine.memory(), machine.memory_limit()
    if total is None:
        return Row(area="machine", name="memory", value="not stated by the system")
    value = in_bytes(total) + (f", {in_bytes(free)} free" if free is not None else "")
    if limit is not None and limit < total:
        value += f"; the cgroup allows {in_bytes(limit)}"
    advice = "Provide at least 2 GB; until then use --batch-size 1 and a small model."
    return note("machine", "memory", value, advice if min(total, limit or total) < LITTLE_MEMORY else None)


def _variable(name: str, value: str) -> Row | None:
    if name in SECRET:
        return Row(area="environment", name=name, value="set (not shown)")
    if name not in VARIABLES:
        if not name.startswith("FOMMCTL_"):
            return None
        known = f"fommctl reads {', '.join(each for each in VARIABLES if each.startswith('FOMMCTL_'))}."
        return note("environment", name, "unknown to fommctl", known)
    shown = value if len(value) <= 120 else f"{value[:120]}..."
    shown = shown if shown.strip() == shown != "" else repr(shown)
    return note("environment", name, f"{shown}: {VARIABLES[name]}", _advice(name, value))


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


LITTLE = 2**30
"""Bytes free, or of shared memory, below which downloads and training will soon fail."""
OLD = 24 * 3600
"""Seconds after which a temporary file is a leftover."""


def check_folders() -> Iterator[Row]:
    """Check FOMMCTL_HOME, torch hub's cache, the temporary and the current folder."""
    from fommctl.home import home

    yield _folder("FOMMCTL_HOME", home(), "Set FOMMCTL_HOME to a writable folder.")
    yield from _leftovers(home())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = Path(os.path.expanduser(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch"))) / "hub"
    yield _folder("torch hub", hub, "Set TORCH_HOME to a writable folder.")
    advice = "Set TMPDIR to a writable folder."
    try:
        yield _folder("temporary files", Path(tempfile.gettempdir()), advice)
    except FileNotFoundError:
        yield problem("disk", "temporary files", "no folder for them", advice)
    try:
        here = _folder("current folder", Path.cwd(), "Give -o, or change to a writable folder.", level="note")
    except OSError as error:
        here = note("disk", "current folder", f"it is gone: {error.strerror}", "Change to another folder.")
    yield here


def check_shared_memory() -> Iterator[Row]:
    """Check /dev/shm, through which training workers hand over pictures; containers have 64 MB."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    advice = "Training with workers needs more: start the container with --shm-size=8g, or use --workers 0."
    yield note("disk", str(folder), in_bytes(size), advice if size < LITTLE else None)


def _folder(name: str, folder: Path, advice: str, level: Level = "problem") -> Row:
    base = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if fault := _write_fault(folder, base):
        value = f"{folder} cannot be written to: {fault}"
        return Row(area="disk", name=name, value=value, level=level, advice=advice)
    free = shutil.disk_usage(base).free
    value = f"{folder}: {'' if base == folder else 'not there yet, '}{in_bytes(free)} free"
    return note("disk", name, value, f"Free some space. {advice}" if free < LITTLE else None)


def _write_fault(folder: Path, base: Path) -> str | None:
    """Return why no file can be made in a folder. Tried out: rights alone do not show a full or a read-only disk."""
    if not base.is_dir():
        return f"{base} is a file"
    try:
        if base != folder:
            return None if os.access(base, os.W_OK | os.X_OK) else f"{base} does not allow it"
        with tempfile.TemporaryFile(dir=folder, prefix=".fommctl-doctor-") as file:
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _leftovers(folder: Path) -> Iterator[Row]:
    """Yield rows for the cache and for what killed processes left behind."""
    sizes: dict[Path, int] = {}
    old: set[Path] = set()
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            try:
                status = path.lstat()
            except OSError:
                continue
            sizes[path] = status.st_size
            if status.st_mtime < time.time() - OLD:
                old.add(path)
    if cached := sum(size for path, size in sizes.items() if path.is_relative_to(folder / "cache")):
        advice = f"It may be deleted at any time: 'rm -r {folder / 'cache'}'."
        yield Row(area="disk", name="caches", value=in_bytes(cached), advice=advice)
    for suffixes, what, before in (
        (".tmp", "half-written files", ""),
        ((".part", ".part.json"), "unfinished downloads", "'fommctl models pull' continues them. Else: "),
        (".lock", "locks, which block nothing", "While no fommctl runs: "),
    ):
        found = sorted(path for path in old if path.name.endswith(suffixes))
        if found:
            value = f"{len(found)} {what}, {in_bytes(sum(sizes[path] for path in found))}, older than a day"
            advice = f"{before}rm {' '.join(repr(str(path)) if ' ' in str(path) else str(path) for path in found[:5])}"
            yield note("disk", "leftovers", value, advice)
