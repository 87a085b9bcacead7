"""Sources and driving videos by patterns, and outputs by names with fields in them."""

from __future__ import annotations

import glob
import os
import re
import string
from collections.abc import Mapping
from pathlib import Path

from fommctl.errors import InputError, UsageError
from fommctl.media.sequences import counting_order, is_pattern
from fommctl.presets.config import did_you_mean

MAX_MATCHES = 100_000
"""Of one pattern, and jobs of one batch."""
_PARTS = ("stem", "name", "suffix", "parent", "folder")
_WIDTH = re.compile(r"0?\d{0,2}d?")


def expand(text: str, base: Path) -> list[Path]:
    """The paths that a field stands for, absolute, in the order in which people count; hidden files are left out.

    text: a path, or one with *, ?, [abc] or ** (any folders) in it; relative to `base`. What exists by this very name
    is no pattern; the number of a sequence of frames (`%05d`) stays as it is. Raises InputError where nothing fits.
    """
    text = os.path.expanduser(text)
    path = base / text
    if not glob.has_magic(text) or os.path.lexists(path):
        return [absolute(path)]
    # The frames of a sequence are one input, their folders may be several.
    frames = path.name if is_pattern(path) and not glob.has_magic(path.name) else ""
    found = []
    for name in glob.iglob(os.path.dirname(text) if frames else text, root_dir=base, recursive=True):
        found.append(absolute(base / name / frames))
        if len(found) > MAX_MATCHES:
            raise InputError(f"the pattern '{text}' fits more than {MAX_MATCHES:,} files", "Give a narrower one.")
    if not found:
        raise InputError(f"no file fits the pattern '{text}'", "In a file of jobs, paths are relative to its folder.")
    return sorted(found, key=lambda each: [counting_order(Path(part)) for part in each.parts])


def absolute(path: Path) -> Path:
    """Without `..` and `.`; links stay as they are."""
    return Path(os.path.abspath(path))


def path_fields(name: str, path: Path) -> dict[str, str]:
    """`source.stem` and so on: stem, name, suffix, parent (the whole path of the folder) and folder (its name).

    A sequence of frames goes by the name of its folder.
    """
    named = path.parent if is_pattern(path) else path
    values = (named.stem, named.name, named.suffix, str(named.parent), named.parent.name)
    return {f"{name}.{part}": value for part, value in zip(_PARTS, values, strict=True)}


def fill(template: str, fields: Mapping[str, str | int]) -> str:
    """`{source.stem}_{number:03}.mov` with the values of these fields; `{{` is a brace.

    No other syntax of Python's formats is known. Raises UsageError for a field that does not exist and for a format.
    """
    filled = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"the output '{template}': {str(error).lower()}", "Write a brace that is no field as {{ or }}."
        ) from error
    for literal, name, width, conversion in parts:
        filled.append(literal)
        if name is not None:
            filled.append(_value(template, name.strip(), width or "", conversion, fields))
    return "".join(filled)


def _value(template: str, name: str, width: str, conversion: str | None, fields: Mapping[str, str | int]) -> str:
    if name not in fields:
        known = ", ".join(fields)
        raise UsageError(
            f"the output '{template}' has an unknown field '{name}'{did_you_mean(name, fields)}", f"Known are {known}."
        )
    value = fields[name]
    if conversion or (width and not (isinstance(value, int) and _WIDTH.fullmatch(width))):
        raise UsageError(
            f"the output '{template}': '{name}' cannot be formatted so", "Only numbers can: {number:03} is 007."
        )
    if isinstance(value, int):
        return format(value, width)
    if name.endswith(".parent"):
        return value
    # A value is part of a name and leads to no other folder.
    return "_" if value in (".", "..") else re.sub(r"[/\\\0]", "_", value)
