"""Files that are complete or absent: temporary names, atomic writes, locked folders, fingerprints, hashes, and CSV.

A temporary file is hidden and beside its target, on the same disk. Its name ends in random digits, so that nobody can
prepare a link under it, and identifies its target, machine and process, so that the next run can remove leftovers of
killed processes without touching files that are still being written.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import stat
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fommctl.errors import InputError, OutputError, UsageError, not_written

LONGEST_NAME = 255
"""Bytes of a file name on the usual file systems."""
_LIKENESS = 40
"""Characters of the target's name in a temporary name, to recognise it by."""
_TEMPORARY = re.compile(r"\..{0,40}\.fommctl-([0-9a-f]{8})-(\d{1,9})(?:-[0-9a-f]+)*\.tmp(?:\.\w+)?", re.DOTALL)
_PROCESSES = "/proc/self/ns/pid"
_ELSEWHERE = "Choose another one with -o."
_UNSAFE = re.compile(r'[/\\:*?"<>|]')


ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.+)", re.IGNORECASE)
"""A URL; a path keeps only one of its slashes."""


def not_there(path: str | os.PathLike[str], reason: str = "does not exist") -> InputError:
    """Return the error for an input that does not exist, with a hint of its own for a URL."""
    if address := ADDRESS.match(os.fspath(path)):
        url = f"{address[1]}://{address[2]}"
        return InputError(
            f"{url} is a URL, but fommctl reads only files", "Download it first, with curl -LO or yt-dlp."
        )
    return InputError(f"{path} {reason}", "Check the spelling and the folder.")


def temporary_path(target: Path) -> Path:
    """Return an unused and unpredictable name beside `target`, with the same suffix."""
    target = _with_name(target)
    process = f"{_machine()}-{os.getpid()}-{_digest_of(target)}-{secrets.token_hex(8)}"
    ending = target.suffix if re.fullmatch(r"\.\w{1,16}", target.suffix) else ""
    return target.parent / f".{_cut(target.stem, 2 * _LIKENESS)[:_LIKENESS]}.fommctl-{process}.tmp{ending}"


def create_temporary(target: Path) -> Path:
    """Create an empty temporary file for `target`, with the mode of the file that it is to replace. Raises OSError."""
    path = temporary_path(target)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o666)
    try:
        with contextlib.suppress(OSError):
            # `stat` follows links: the mode of a link itself means nothing.
            os.chmod(path, stat.S_IMODE(target.stat().st_mode))
    finally:
        os.close(handle)
    return path


def create_temporary_folder(target: Path) -> Path:
    """Create an empty temporary folder for the folder `target`. Raises OSError."""
    path = temporary_path(target)
    path.mkdir()
    return path


class HeldFolder:
    """A folder whose temporary files can be removed even after it was moved (on POSIX systems)."""

    def __init__(self, folder: Path) -> None:
        """Hold a folder until `close`. Raises OSError."""
        self._folder = folder
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if os.name == "posix" else None

    def remove(self, name: str) -> None:
        """Remove the file or folder of this name, if there is one."""
        if self._handle is None:
            _remove(self._folder / name)
            return
        try:
            os.unlink(name, dir_fd=self._handle)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(name, ignore_errors=True, dir_fd=self._handle)

    def close(self) -> None:
        """Release the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def atomic_write(
    target: Path, *, hint: str = "Free some space, or check the permissions of the folder."
) -> Iterator[Path]:
    """Yield a temporary file beside `target`, which replaces `target` at the end, or is removed after an error.

    The content is synced to disk before the rename, so that a power cut leaves the old file or the new one. A missing
    folder is created. Raises OutputError with this hint if the folder is not writable or the disk is full.
    """
    temporary: Path | None = None
    require_in_place(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = create_temporary(target)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise not_written(target, error, hint) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; file names that are not UTF-8 are kept byte for byte. Raises
    OutputError."""
    with atomic_write(target, hint="Free some space, or write elsewhere with -o.") as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def publish(finished: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished file to its final name, replacing another file only if `overwrite` is set.

    Raises UsageError if the name was taken meanwhile, and OSError; the finished file is then kept.
    """
    if overwrite:
        os.replace(finished, target)
        return
    try:
        os.link(finished, target)
    except FileExistsError as error:
        raise _appeared(target) from error
    except OSError:
        # No hard links on this file system: a file could still appear between these two lines.
        if target.exists():
            raise _appeared(target) from None
        os.rename(finished, target)
    else:
        finished.unlink()


def _appeared(target: Path) -> UsageError:
    return UsageError(
        f"the output was written by another program in the meantime: {target}",
        "Use --overwrite, or another name with -o.",
    )


def replace_folder(finished: Path, target: Path) -> None:
    """Rename a finished folder to its final name; if that fails, the folder it replaces is restored. Raises OSError.

    Between the two renames the old folder is called `.NAME.replaced`, which is never removed as stale, so that even two
    failures in a row lose nothing.
    """
    aside = target.with_name(f".{target.name}.replaced")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    try:
        finished.rename(target)
    except OSError:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def keep_copy(old: Path, aside: Path) -> None:
    """Keep a file that is about to be replaced under a second name, so that it can be restored. Raises OSError."""
    try:
        os.link(old, aside)
    except OSError:
        shutil.copy2(old, aside)


def real_target(path: Path) -> Path:
    """Resolve a link, so that its target is replaced and not the link itself; other paths are returned unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def remove_stale_files(folder: Path, target: Path | None = None) -> None:
    """Remove the temporary files and folders that killed processes of this machine have left in a folder.

    target: remove only those for this file or folder. Temporary files of running processes are kept, and so is every
    file without a name from `temporary_path`.
    """
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _TEMPORARY.fullmatch(name)
            if match is None or match[1] != _machine() or is_running(int(match[2])):
                continue
            if target is None or f"-{_digest_of(target)}-" in name:
                _remove(folder / name)


def is_running(process: int) -> bool:
    """Return whether this machine runs a process with this number; zombies do not count."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to another user.
        return True
    with contextlib.suppress(OSError):
        # Linux: the state follows the name, which may contain anything.
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Return a short identifier of the machine, or the container, in which process numbers are unique."""
    with contextlib.suppress(OSError):
        return f"{zlib.crc32(f'{socket.gethostname()} {os.readlink(_PROCESSES)}'.encode()):08x}"
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _digest_of(target: Path) -> str:
    """Return a digest of the target's name, which distinguishes targets whose names begin alike."""
    return f"{zlib.crc32(os.fsencode(_with_name(target).name)):08x}"


def _with_name(path: Path) -> Path:
    """Resolve a path without a name, such as `.`, the folder of `%05d.png`; return others unchanged."""
    return path if path.name not in ("", "..") else Path(os.path.realpath(path))


def require_own_folder(
    folder: Path, marker: str, *, contents: str, made_earlier: Callable[[Path], bool] = lambda folder: False
) -> None:
    """Raise UsageError for a folder that fommctl has not made, before anything in it is replaced or deleted.

    Folders that are missing, empty or contain the file `marker` (from `exclusive_folder`) are accepted.
    contents: what such folders contain, such as "evaluation", for the message.  made_earlier(folder): whether an older
    version, which left no marker, has made it. Raises OutputError if it is not a folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"the output is not a folder: {folder}", _ELSEWHERE)
    if (folder / marker).exists() or made_earlier(folder):
        return
    if any(folder.iterdir()):
        raise UsageError(f"the output folder is not empty and contains no {contents}: {folder}", _ELSEWHERE)


@contextmanager
def exclusive_folder(folder: Path, marker: str, *, hint: str = _ELSEWHERE) -> Iterator[None]:
    """Create a folder if it is missing, mark it as fommctl's, and lock out other runs until the end.

    marker: name of the lock file, such as `.fommctl-evaluation`; it is kept and marks the folder. The lock ends with
    the process, however that ends. Raises OutputError if the folder is not writable, UsageError if another run uses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot make the folder {folder}: {reason}", hint) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the output folder is not writable: {folder}", hint)
    with contextlib.ExitStack() as held:
        try:
            entered = held.enter_context(locked(folder / marker))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot write to {folder}: {reason}", hint) from error
        if not entered:
            raise UsageError(f"another run is writing to {folder}", "Wait for it to finish, or choose another folder.")
        held.enter_context(held_in_place(folder))
        yield


_HELD: dict[Path, tuple[int, int]] = {}
"""Folders that this process uses exclusively -> device and inode, which stay the same when a folder is moved."""


@contextmanager
def held_in_place(folder: Path) -> Iterator[None]:
    """Within the block, let writes to a folder fail after it was moved, instead of creating it again (see
    `require_in_place`)."""
    path, identity = Path(os.path.abspath(folder)), _identity(folder)
    if identity is not None:
        _HELD[path] = identity
    try:
        yield
    finally:
        _HELD.pop(path, None)


def require_in_place(path: Path) -> None:
    """Raise OutputError if `path` is in a folder of `held_in_place` that was moved, removed or replaced."""
    path = Path(os.path.abspath(path))
    for folder in (path, *path.parents):
        if folder in _HELD and _identity(folder) != _HELD[folder]:
            hint = "What was finished is still in it: put it back, and run the same command again."
            raise OutputError(f"the output folder was moved or removed in the meantime: {folder}", hint)


def _identity(folder: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = folder.stat()
        return status.st_dev, status.st_ino
    return None


@contextmanager
def locked(path: Path, *, patience: float = 0.0) -> Iterator[bool]:
    """Hold an inter-process lock on the file `path`, which is kept afterwards.

    Yields False, without the lock, if another process holds it for longer than `patience` seconds. Raises OSError if
    the file cannot be created or locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class FileFingerprint:
    """Size and times of a file or a set of files, to detect changes without reading the content.

    Fingerprints from other programs or earlier versions may lack the last two values, which are then not compared.
    """

    size: int
    """Size in bytes, summed over all files."""
    mtime_ns: int
    """Time of the last write, the latest of all files."""
    ctime_ns: int | None = None
    """Time of the last change of any kind, which programs cannot set."""
    inode: int | None = None
    """Inode number; None for several files."""

    @classmethod
    def of(cls, *paths: Path) -> FileFingerprint:
        """Take the fingerprint of one or more files. Raises OSError."""
        found = [path.stat() for path in paths]
        return cls(
            sum(each.st_size for each in found),
            max(each.st_mtime_ns for each in found),
            max(each.st_ctime_ns for each in found),
            found[0].st_ino if len(found) == 1 else None,
        )

    def agrees_with(self, other: FileFingerprint) -> bool:
        """Return whether all values that both have are equal."""
        mine, theirs = self.to_json(), other.to_json()
        return all(one == two for one, two in zip(mine, theirs, strict=True) if None not in (one, two))

    @property
    def content(self) -> FileFingerprint:
        """Size and time of writing, which are the same in a copy that preserves times."""
        return FileFingerprint(self.size, self.mtime_ns)

    def to_json(self) -> list[int | None]:
        """Return the four values in their order."""
        return [self.size, self.mtime_ns, self.ctime_ns, self.inode]


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raises OSError, also for devices and for pipes, on which opening would block."""
    return open(path, "rb", opener=_regular)


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, also for pipes and devices."""
    with open_regular(path) as file:
        return file.read()


def _regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        # `open` itself raises the error for folders.
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is a pipe or a device", path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, hexadecimal; file names that are not UTF-8 are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def safe_file_name(text: str, *, forbidden: str = "", longest: int = LONGEST_NAME, empty: str = "_") -> str:
    """Convert `text` to a file name that every file system accepts; safe names are unchanged.

    Separators, control characters, direction marks, lone surrogates and the letters of `forbidden` become `_`; dots and
    spaces at both ends are removed. The result is cut to `longest` bytes of UTF-8; if nothing is left, it is `empty`.
    """
    normal = unicodedata.normalize("NFC", text)
    kept = "".join(
        "_" if _UNSAFE.match(letter) or letter in forbidden or not (letter.isprintable() or letter == " ") else letter
        for letter in normal
    )
    return _cut(kept.strip(" ."), longest).strip(" .") or empty


def comparable_name(name: str) -> str:
    """Return a key that is equal for names which a file system that ignores case and Unicode form does not
    distinguish."""
    return unicodedata.normalize("NFC", name.casefold())


def _cut(text: str, size: int) -> str:
    """Cut `text`, which may be a file name that is not UTF-8, to `size` bytes."""
    whole = text.encode("utf-8", "surrogateescape")
    return text if len(whole) <= size else whole[:size].decode("utf-8", "ignore")


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that start a formula in spreadsheets, or that they skip before one."""


def write_csv(file: TextIO, rows: Iterable[Sequence[str | int | float | None]]) -> None:
    """Write rows as CSV. Text that begins like a formula gets an apostrophe in front; numbers are unchanged."""
    csv.writer(file).writerows(
        [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row] for row in rows
    )
