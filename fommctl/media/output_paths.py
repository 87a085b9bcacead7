"""Paths of results: patterns of numbered pictures, leftovers of killed processes, and checks before any work."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from fommctl.errors import OutputError, UsageError
from fommctl.files import real_target, remove_stale_files, require_in_place

_NUMBER = re.compile(r"(?<!%)((?:%%)*)%(0?\d*)d")
_HASHES = re.compile(r"#+")
PICTURES = frozenset({".png", ".exr", ".dpx", ".tif", ".tiff"})
"""Suffixes of results that are numbered pictures."""


def is_pattern(path: Path) -> bool:
    """Return whether the name has a picture's suffix and exactly one number such as %05d or ####; `100%done.mp4` is a
    video."""
    return path.suffix.lower() in PICTURES and len(_NUMBER.findall(_printf(path))) == 1


def _printf(path: Path) -> str:
    """Convert `name.####.exr` to printf's `name.%04d.exr` (a single # stands for four digits), unless a file with that
    very name exists."""
    name = path.name
    found = list(_HASHES.finditer(name))
    if len(found) != 1 or _NUMBER.search(name) or path.exists():
        return name
    start, end = found[0].span()
    width = end - start if end - start > 1 else 4
    return f"{name[:start].replace('%', '%%')}%0{width}d{name[end:].replace('%', '%%')}"


def numbered(path: Path, number: int) -> Path:
    """Return the path of the picture with this number."""
    return path.with_name(_printf(path) % number)


def matching(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield number and path of every existing picture that matches the pattern."""
    if not path.parent.is_dir():
        return
    for entry in path.parent.iterdir():
        number = number_of(path, entry.name)
        if number is not None:
            yield number, entry


def number_of(path: Path, name: str) -> int | None:
    """Return the number of the picture called `name` in the pattern `path`; None if the name does not match."""
    pattern = _printf(path)
    match = _NUMBER.search(pattern)
    if match is None:
        return None
    before, after = pattern[: match.end(1)] % (), pattern[match.end() :] % ()
    digits = name[len(before) : len(name) - len(after)]
    fits = name.startswith(before) and name.endswith(after) and digits.isascii() and digits.isdigit()
    return int(digits) if fits and pattern % int(digits) == name else None


def remove_stale_output(path: Path) -> None:
    """Remove partial files of an output (a file or a pattern) that killed processes of this machine have left."""
    if is_pattern(path):
        remove_stale_files(path.parent.parent, path.parent)
        remove_stale_files(path.parent, path.parent)
    else:
        remove_stale_files(path.parent, path)


def check_target(path: Path, overwrite: bool, inputs: Sequence[Path], numbers: Container[object] | None = None) -> None:
    """Raise UsageError if `path` exists (and `overwrite` is false) or is an input, OutputError if it cannot be written.

    numbers: numbers of a pattern whose pictures must not exist; None: all.
    """
    _check_name(numbered(path, 1) if is_pattern(path) else path)
    if is_pattern(path):
        _check_pattern(path, overwrite, inputs, numbers)
        return
    target = real_target(path)
    if target.is_dir():
        raise UsageError(f"the output is a folder: {path}", f"Name a file in it, such as {path / 'result.mp4'}.")
    _check_folder(target.parent, f"Create it first: mkdir -p '{target.parent}'.")
    for source in inputs:
        if _same(path, source):
            raise UsageError(f"the output would replace an input: {path}", "Choose another name with -o.")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OutputError(f"the output is not a regular file: {path}", "Choose another name with -o.")
    if target.exists() and not overwrite:
        raise UsageError(f"the output already exists: {path}", "Use --overwrite, or another name with -o.")


def _check_name(path: Path) -> None:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OutputError(f"the name of the output is too long: {path}", "Give a shorter one with -o.") from error


def _check_pattern(path: Path, overwrite: bool, inputs: Sequence[Path], numbers: Container[object] | None) -> None:
    folder = path.parent
    if not folder.exists():
        # One level of folders is created later, so that `frames/` need not exist.
        _check_folder(folder.parent, f"Create it first: mkdir -p '{folder}'.")
        return
    _check_folder(folder, "Choose another folder with -o.")
    present = [entry for number, entry in matching(path) if numbers is None or number in numbers]
    for source in inputs:
        inside = os.path.isdir(source) and _same(folder, source)
        if inside or _input_pattern_meets(source, folder, path):
            raise UsageError(f"the output would mix with the input frames: {path}", "Choose another folder with -o.")
        if any(_same(entry, source) for entry in present):
            raise UsageError(f"the output would replace an input: {source}", "Choose another folder with -o.")
    if present and not overwrite:
        raise UsageError(f"frames already exist: {sorted(present)[0]}", "Use --overwrite, or another folder with -o.")


def _input_pattern_meets(source: Path, folder: Path, path: Path) -> bool:
    """Return whether `source` is a pattern in the same folder whose pictures may have names of the pattern `path`."""
    if not is_pattern(source) or not _same(source.parent, folder):
        return False
    return source.name == path.name or any(number_of(path, entry.name) is not None for _, entry in matching(source))


def _check_folder(folder: Path, hint: str) -> None:
    require_in_place(folder)
    if not folder.exists():
        raise OutputError(f"the output folder does not exist: {folder}", hint)
    if not folder.is_dir():
        raise OutputError(f"the output folder is not a folder: {folder}", "Choose another one with -o.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"the output folder is not writable: {folder}", "Choose another one with -o.")


def _same(one: Path, other: Path) -> bool:
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)
