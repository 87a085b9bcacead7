"""Checks of the folders that fommctl writes to: writable, free space, leftovers. Nothing is changed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fommctl.doctor.report import Level, Row, in_bytes

LITTLE = 2**30
"""Bytes free, or of shared memory, below which downloads and training will soon fail."""
NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.sshfs", "fuse.s3")
"""Beginnings of the names of network file systems."""
OLD = 24 * 3600
"""Seconds after which a temporary file is a leftover."""


def check_folders() -> Iterator[Row]:
    """Check FOMMCTL_HOME, torch hub's cache, the temporary and the current folder."""
    from fommctl.models.home import home

    yield _folder("FOMMCTL_HOME", home(), "Set FOMMCTL_HOME to a writable folder.")
    yield from _leftovers(home())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = Path(os.path.expanduser(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch"))) / "hub"
    yield _folder("torch hub", hub, "Set TORCH_HOME to a writable folder.")
    advice = "Set TMPDIR to a writable folder."
    try:
        yield _folder("temporary files", Path(tempfile.gettempdir()), advice)
    except FileNotFoundError:
        yield Row(area="disk", name="temporary files", value="no folder for them", level="problem", advice=advice)
    try:
        here = _folder("current folder", Path.cwd(), "Give -o, or change to a writable folder.", level="note")
    except OSError as error:
        value, advice = f"it is gone: {error.strerror}", "Change to another folder."
        here = Row(area="disk", name="current folder", value=value, level="note", advice=advice)
    yield here


def check_shared_memory() -> Iterator[Row]:
    """Check /dev/shm, through which training workers hand over pictures; containers have 64 MB."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    advice = "Training with workers needs more: start the container with --shm-size=8g, or use --workers 0."
    if size < LITTLE:
        yield Row(area="disk", name=str(folder), value=in_bytes(size), level="note", advice=advice)
    else:
        yield Row(area="disk", name=str(folder), value=in_bytes(size))


def _folder(name: str, folder: Path, advice: str, level: Level = "problem") -> Row:
    base = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if fault := _write_fault(folder, base):
        value = f"{folder} cannot be written to: {fault}"
        return Row(area="disk", name=name, value=value, level=level, advice=advice)
    free, kind = shutil.disk_usage(base).free, _file_system(base)
    value = f"{folder}: {'' if base == folder else 'not there yet, '}{in_bytes(free)} free"
    if free < LITTLE:
        return Row(area="disk", name=name, value=value, level="note", advice=f"Free some space. {advice}")
    if kind.startswith(NETWORK):
        advice = "Large models load more slowly from there, and some network disks lose locks: prefer a local one."
        return Row(area="disk", name=name, value=f"{value}, network disk ({kind})", level="note", advice=advice)
    return Row(area="disk", name=name, value=value)


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
            yield Row(area="disk", name="leftovers", value=value, level="note", advice=advice)


def _file_system(folder: Path) -> str:
    """Return the kind of file system of a folder; empty where the system does not state it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place, best, kind = os.path.realpath(folder), "", ""
    for left, right in (line.split(" - ", 1) for line in mounts if " - " in line):
        point = left.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape", "replace")
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
