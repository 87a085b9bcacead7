"""Checks that load no library: machine, installed distributions, folders, environment variables. Nothing is changed."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl import __version__, machine
from fommctl.doctor.report import Level, Row, in_bytes, note, problem
from fommctl.home import home

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LITTLE_MEMORY = 2 * 2**30
"""Bytes of memory below which there is a note: `animate` takes about 700 MB, with vox at 256 pixels about 1.5 GB."""


def check_machine() -> Iterator[Row]:
    """Check Python, the operating system, the processor and the memory."""
    yield Row("Python", f"{platform.python_version()}, {platform.python_implementation()}")
    yield Row("platform", platform.platform())
    yield Row("processor", machine.processor()[0])
    total, usable, quota = os.cpu_count() or 1, machine.usable_cores(), machine.core_quota()
    value = f"{usable} of {total}" if usable < total else f"{total}"
    advice = None
    if quota is not None and quota < usable:
        value += f", limited by the cgroup to {quota:g}"
        advice = f"More threads than the quota wait for each other: set OMP_NUM_THREADS={max(1, int(quota))}."
    yield note("cores", value, advice)
    (size, free), limit = machine.memory(), machine.memory_limit()
    if size is None:
        yield Row("memory", "not stated by the system")
        return
    value = in_bytes(size) + (f", {in_bytes(free)} free" if free is not None else "")
    value += f"; the cgroup allows {in_bytes(limit)}" if limit is not None and limit < size else ""
    advice = "Provide at least 2 GB; until then use --batch-size 1 and a small model."
    yield note("memory", value, advice if min(size, limit or size) < LITTLE_MEMORY else None)


SHARED_MODULES = ("cv2", "dlib", "PIL", "numpy", "torch", "av")
"""Modules that several distributions install under the same name, overwriting each other's files."""


def requirements(extra: str = "") -> list[Requirement]:
    """Return fommctl's declared dependencies for this platform, or those that an extra adds; sorted by name."""
    from packaging.requirements import Requirement

    declared = [Requirement(text) for text in metadata.requires("fommctl") or ()]
    plain = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    added = [each for each in declared if each.marker is not None and each.marker.evaluate({"extra": extra})]
    found = [each for each in added if each not in plain] if extra else plain
    return sorted(found, key=lambda each: each.name.lower())


def version(name: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfied(requirement: Requirement) -> bool:
    """Return whether the installed version satisfies a requirement, including builds such as 2.6.0+cpu."""
    installed = version(requirement.name)
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def editable(distribution: metadata.Distribution) -> bool:
    """Return whether a distribution was installed with `pip install --editable`."""
    address = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(address.get("dir_info", {}).get("editable"))


def check_installation() -> Iterator[Row]:
    """Check fommctl's own distribution, whose metadata lists its plugins, and modules with several owners."""
    code, installed = Path(__file__).parents[2], version("fommctl")
    if installed is None:
        value = f"{__version__} in {code}, not installed: its plugins cannot be found"
        yield problem("fommctl", value, f"Run 'pip install --editable {code}'.", stops=True)
        return
    linked = editable(metadata.distribution("fommctl"))
    value = f"{__version__}{', editable' if linked else ''}, in {code}"
    if installed == __version__:
        yield Row("fommctl", value)
    else:
        again = f"--editable {code}" if linked else "--force-reinstall fommctl"
        value = f"{value}, but its metadata is that of {installed}"
        yield problem("fommctl", value, f"Run 'pip install {again}'.")
    owners = metadata.packages_distributions()
    for module in SHARED_MODULES:
        names = sorted({re.sub(r"[-_.]+", "-", name).lower() for name in owners.get(module, ())})
        if len(names) > 1:
            value = f"{module} comes from {' and '.join(names)}, which overwrite each other's files"
            again = f"'pip uninstall {' '.join(names)}', then 'pip install --force-reinstall {names[0]}'"
            yield problem(module, value, f"Keep one: run {again}.")


def check_extras() -> Iterator[Row]:
    """Check the optional dependencies."""
    for extra in sorted(set(metadata.metadata("fommctl").get_all("Provides-Extra") or ()) - {"dev"}):
        wanted = requirements(extra)
        if lacking := [str(each).partition(";")[0].strip() for each in wanted if not satisfied(each)]:
            advice = f"Run \"pip install 'fommctl[{extra}]'\" if you need it."
            yield note(extra, f"lacks {', '.join(lacking)}", advice)
        else:
            value = ", ".join(f"{each.name} {version(each.name)}" for each in wanted)
            yield Row(extra, value or "nothing to install on this platform")


LITTLE_SPACE = 2**30
"""Bytes of free space or shared memory below which downloads and training will soon fail."""
OLD = 24 * 3600
"""Age in seconds from which on a temporary file counts as a leftover."""
LEFTOVERS = (
    ((".tmp",), "half-written files", ""),
    ((".part", ".part.json"), "unfinished downloads", "'fommctl models pull' continues them. Else: "),
    ((".lock",), "locks, which block nothing", "While no fommctl runs: "),
)
"""Leftovers of killed processes: suffixes, description, and advice before deleting them."""


def check_disk() -> Iterator[Row]:
    """Check FOMMCTL_HOME, torch hub's cache, the temporary and the current folder, and shared memory."""
    yield _folder("FOMMCTL_HOME", home(), "Set FOMMCTL_HOME to a writable folder.")
    yield from _leftovers(home())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = Path(os.path.expanduser(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch"))) / "hub"
    yield _folder("torch hub", hub, "Set TORCH_HOME to a writable folder.")
    advice = "Set TMPDIR to a writable folder."
    try:
        yield _folder("temporary files", Path(tempfile.gettempdir()), advice)
    except FileNotFoundError:
        yield problem("temporary files", "no folder for them", advice)
    try:
        yield _folder("current folder", Path.cwd(), "Give -o, or change to a writable folder.", level="note")
    except OSError as error:
        yield note("current folder", f"it is gone: {error.strerror}", "Change to another folder.")
    if (shared := Path("/dev/shm")).is_dir():
        # Training workers pass pictures through it; containers have only 64 MB by default.
        size = shutil.disk_usage(shared).total
        advice = "Training with workers needs more: start the container with --shm-size=8g, or use --workers 0."
        yield note(str(shared), in_bytes(size), advice if size < LITTLE_SPACE else None)


def _folder(name: str, folder: Path, advice: str, level: Level = "problem") -> Row:
    base = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    try:
        # Write a file: permissions alone do not show a full or read-only disk.
        with tempfile.TemporaryFile(dir=base, prefix=".fommctl-doctor-") as file:
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        fault = f"{base} is a file" if base.is_file() else error.strerror or str(error)
        return Row(name, f"{folder} cannot be written to: {fault}", level, advice)
    free = shutil.disk_usage(base).free
    value = f"{folder}: {'' if base == folder else 'not there yet, '}{in_bytes(free)} free"
    return note(name, value, f"Free some space. {advice}" if free < LITTLE_SPACE else None)


def _leftovers(folder: Path) -> Iterator[Row]:
    """Yield a row for each kind of leftovers of killed processes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime < time.time() - OLD)
    for endings, what, before in LEFTOVERS:
        if old := [path for path in found if path.name.endswith(endings)]:
            size = in_bytes(sum(path.stat().st_size for path in old))
            advice = f"{before}rm {shlex.join(map(str, old[:5]))}"
            yield note("leftovers", f"{len(old)} {what}, {size}, older than a day", advice)


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
SECRET = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
"""Variables whose value is never shown, in upper case."""
ADVICE = {
    "RANK": "Unset it outside of torchrun: 'fommctl train' would wait for other processes.",
    "PYTHONPATH": "Unset it where a package is found in the wrong place.",
    "LD_PRELOAD": "Unset it where a library crashes at import.",
}
"""Advice for variables, whatever their value."""


def check_variables() -> Iterator[Row]:
    """Check environment variables: their effect, and values that are wrong or slow fommctl down."""
    found = False
    for name, value in sorted(os.environ.items()):
        if name.upper() in SECRET:
            yield Row(name, "set (not shown)")
        elif name in VARIABLES:
            shown = value if value.strip() == value != "" else repr(value)
            yield note(name, f"{shown}: {VARIABLES[name]}", ADVICE.get(name) or _value_advice(name, value))
        elif name.startswith("FOMMCTL_"):
            known = ", ".join(each for each in VARIABLES if each.startswith("FOMMCTL_"))
            yield note(name, "unknown to fommctl", f"fommctl reads {known}.")
        else:
            continue
        found = True
    if not found:
        yield Row("variables", "none that fommctl reads is set")


def _value_advice(name: str, value: str) -> str | None:
    if name == "CUDA_VISIBLE_DEVICES" and value.strip() in ("", "-1", "NoDevFiles"):
        return "It hides all GPUs; unset it to use them."
    if name != "OMP_NUM_THREADS":
        return None
    first, cores = value.split(",")[0].strip(), machine.usable_cores()
    if not first.isdecimal() or int(first) == 0:
        return "Not a number of threads, and ignored: set it to the number of cores, or unset it."
    if int(first) > cores:
        return f"More threads than the {cores} cores wait for each other: lower it, or unset it."
    return f"{cores} cores may be used: raise it, or unset it." if int(first) < cores else None
