"""Folders that fommctl writes to: where they lie, their size, free space, leftovers. Nothing is changed but a
temporary file, made and removed at once."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fommctl.models.home import home
from fommctl.stages.doctor.findings import Finding, Level
from fommctl.stages.doctor.machine import in_bytes

AREA = "disk"
LITTLE = 2**30
"""Bytes free, below which downloads and training will soon fail."""
LITTLE_SHARED = 2**30
"""Bytes of /dev/shm; containers have 64 MB."""
SHARED_MEMORY = Path("/dev/shm")
_MOUNTS = Path("/proc/self/mountinfo")
NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.sshfs", "fuse.s3")
"""Beginnings of the names of file systems that another machine holds."""
OLD = 24 * 3600
"""Seconds after which what a process left is a leftover."""
_MOST_FILES = 20_000
_LISTED = 5


def check_home() -> Iterator[Finding]:
    """FOMMCTL_HOME: models, caches, locks."""
    folder = home()
    yield _folder("FOMMCTL_HOME", folder, "Set FOMMCTL_HOME to a folder that you can write to.")
    yield from _leftovers(folder)
    cache = folder / "cache"
    if cache.is_dir():
        advice = f"It may be deleted at any time: 'rm -r {cache}'; it is filled again as it is needed."
        yield Finding(area=AREA, name="caches", value=in_bytes(_size(cache)), advice=advice)


def check_torch_hub() -> Iterator[Finding]:
    """The cache of torch hub, in which weights of detectors, metrics and losses lie."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = Path(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")).expanduser() / "hub"
    yield _folder("torch hub", hub, "Set TORCH_HOME to a folder that you can write to.")


def check_temporary() -> Iterator[Finding]:
    """The folder for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        advice = "Set TMPDIR to a folder that you can write to."
        yield Finding(area=AREA, name="temporary files", value="no folder for them", level="problem", advice=advice)
        return
    yield _folder("temporary files", folder, "Set TMPDIR to a folder that you can write to.", measured=False)


def check_here() -> Iterator[Finding]:
    """The current folder, where `animate` writes unless told otherwise."""
    advice = "Give -o, or go to a folder that you can write to."
    try:
        folder = Path.cwd()
    except OSError as error:
        value = f"it is gone: {error.strerror}"
        yield Finding(area=AREA, name="current folder", value=value, level="note", advice="Go to another folder.")
        return
    free = _free(folder)
    fault = write_fault(folder)
    if fault:
        yield Finding(area=AREA, name="current folder", value=fault, level="note", advice=advice)
    else:
        yield _with_space("current folder", f"writable, {in_bytes(free)} free{_remote(folder)}", free, advice)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Iterator[Finding]:
    """/dev/shm, through which the workers of training hand over pictures."""
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    if size < LITTLE_SHARED:
        advice = "Training with workers needs more: start the container with --shm-size=8g, or give --workers 0."
        yield Finding(area=AREA, name=str(folder), value=in_bytes(size), level="note", advice=advice)
    else:
        yield Finding(area=AREA, name=str(folder), value=in_bytes(size))


def _folder(name: str, folder: Path, advice: str, *, measured: bool = True) -> Finding:
    fault = write_fault(folder)
    if fault:
        value = f"{folder} cannot be written to: {fault}"
        return Finding(area=AREA, name=name, value=value, level="problem", advice=advice)
    there = folder.is_dir()
    size = f"holds {in_bytes(_size(folder))}, " if there and measured else "" if there else "not there yet, "
    free = _free(nearest(folder))
    return _with_space(name, f"{folder}: {size}{in_bytes(free)} free{_remote(folder)}", free, advice)


def _with_space(name: str, value: str, free: int, advice: str) -> Finding:
    level: Level = "ok"
    said: str | None = None
    if free < LITTLE:
        level, said = "note", f"Free some space. {advice}"
    elif "network" in value:
        level, said = (
            "note",
            "Large models load slower from there, and some network disks lose locks: a local one is surer.",
        )
    return Finding(area=AREA, name=name, value=value, level=level, advice=said)


def write_fault(folder: Path) -> str | None:
    """Why no file can be made in a folder, or the folder cannot be made; None where it can. Tried out where the folder
    is there: rights alone do not tell (a superuser, a disk mounted for reading, a full one)."""
    base = nearest(folder)
    if not base.is_dir():
        return f"{base} is a file"
    try:
        if base == folder:
            with tempfile.TemporaryFile(dir=folder, prefix=".fommctl-doctor-") as file:
                file.write(b"0" * 4096)
                file.flush()
        elif not os.access(base, os.W_OK | os.X_OK):
            return f"{base} does not allow it"
    except OSError as error:
        return error.strerror or str(error)
    return None


def nearest(folder: Path) -> Path:
    """The folder, or what is there of the way to it."""
    return next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _size(folder: Path) -> int:
    """Bytes of the files in it, of the first thousands."""
    return sum(size for size, _ in _files(folder).values())


def _files(folder: Path) -> dict[Path, tuple[int, float]]:
    """Size and time of the last change of every file below; those that vanish meanwhile are left out."""
    found: dict[Path, tuple[int, float]] = {}
    for place, _, names in os.walk(folder, onerror=lambda error: None):
        for name in names[: _MOST_FILES - len(found)]:
            path = Path(place, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            found[path] = status.st_size, status.st_mtime
    return found


def _leftovers(folder: Path) -> Iterator[Finding]:
    """What processes that were killed left, and locks that nobody has held for a day."""
    before = time.time() - OLD
    old = {path: size for path, (size, changed) in _files(folder).items() if changed < before}
    parts = sorted(path for path in old if path.name.startswith(".") and path.suffix == ".tmp")
    downloads = sorted(path for path in old if path.name.endswith((".part", ".part.json")))
    locks = sorted(path for path in old if path.suffix == ".lock")
    if parts:
        value = f"{len(parts)} half-written, {in_bytes(sum(old[path] for path in parts))}, older than a day"
        yield Finding(area=AREA, name="leftovers", value=value, level="note", advice=_removal(parts))
    if downloads:
        value = f"{len(downloads)} of downloads, {in_bytes(sum(old[path] for path in downloads))}, older than a day"
        advice = f"'fommctl models pull' goes on with them. Not wanted any more: {_removal(downloads)}"
        yield Finding(area=AREA, name="leftovers", value=value, level="note", advice=advice)
    if locks:
        value = f"{len(locks)} older than a day; they hold nobody up"
        advice = f"While no fommctl runs they may go: {_removal(locks)}"
        yield Finding(area=AREA, name="locks", value=value, level="note", advice=advice)


def _removal(paths: list[Path]) -> str:
    named = " ".join(f"'{path}'" if " " in str(path) else str(path) for path in paths[:_LISTED])
    return f"rm {named}" + (f" and {len(paths) - _LISTED} more beside them" if len(paths) > _LISTED else "")


def _remote(folder: Path) -> str:
    kind = file_system(folder)
    return f", on a network disk ({kind})" if kind.startswith(NETWORK) else ""


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system that holds a folder; empty where the system does not tell. Never its server."""
    try:
        text = mounts.read_text(encoding="utf-8", errors="surrogateescape")
        place = os.path.realpath(folder)
    except OSError:
        return ""
    best, kind = "", ""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        point = words[4].encode("utf-8", "surrogateescape").decode("unicode_escape", "replace")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
