"""Identification of model files from their first bytes and headers, without torch."""

import json
import os
import stat
from math import prod
from pathlib import Path
from typing import Any, Literal

from fommctl.errors import ModelError
from fommctl.files import file_sha256, text_sha256

Kind = Literal["safetensors", "torch zip", "torch pickle"]

ENDINGS = (".pth", ".pt", ".pth.tar", ".ckpt", ".safetensors")
MOST_FILES = 100

HEADER_LIMIT = 16 * 2**20
"""Bytes; no header of a model of this size comes near it."""

_DAMAGED = "Copy or download it again."
_PRETENDERS = (
    (b"<!doctype html", "a web page", "The server sent a page instead of the file: download it again."),
    (b"<html", "a web page", "The server sent a page instead of the file: download it again."),
    (b"version https://git-lfs", "a Git LFS pointer", "Fetch the real file with 'git lfs pull'."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first."),
)


def weights_in(path: Path) -> list[Path]:
    """Return the files of a model: itself, or those of weights in a folder, by name. Raises ModelError if there are
    none, or more than a model has."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.name.endswith(ENDINGS) and not each.name.startswith("."))
    if not 0 < len(found) <= MOST_FILES:
        held = f"holds {len(found)} files" if found else "is a folder without a file"
        raise ModelError(f"{path} {held} of weights ({' '.join(ENDINGS)})", "Name the folder of one model, or a file.")
    return found


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of a model file; for a folder, of the names and hashes of its files. Raises OSError."""
    if not path.is_dir():
        return file_sha256(path)
    lines = [f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in weights_in(path)]
    return text_sha256("".join(lines))


def sniff(path: Path) -> Kind:
    """Return the kind of the model file at `path`. Raises ModelError for other files, with what they are."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            # Opening a pipe blocks until something writes to it.
            raise ModelError(f"{path} is a pipe or a device, not a model file", "Copy the model into a file.")
        with path.open("rb") as file:
            start = file.read(512)
    except IsADirectoryError:
        raise ModelError(
            f"{path} is a folder, not a model file",
            "A published .pth.tar file is used as it is; it is not an archive to unpack.",
        ) from None
    except FileNotFoundError:
        raise ModelError(f"there is no model file {path}", "See 'fommctl models list' for the known models.") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check the permissions of the file.") from error
    if not start:
        raise ModelError(f"{path} is empty", _DAMAGED)
    if start.startswith(b"PK\x03\x04"):
        return "torch zip"
    if start[8:9] == b"{" and start[5:8] == bytes(3):
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "torch pickle"
    for magic, what, hint in _PRETENDERS:
        if start.lower().startswith(magic):
            raise ModelError(f"{path} is {what}, not a model", hint)
    if start[257:262] == b"ustar":
        raise ModelError(f"{path} is a tar archive, not a model", "Unpack it; the model is a file inside it.")
    raise ModelError(f"{path} is not a model: neither a torch checkpoint nor safetensors", "Is it the right file?")


def read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file: {tensor name: {"dtype", "shape", "data_offsets"}, "__metadata__":
    {...}}.

    Raises ModelError if it is not a readable safetensors file.
    """
    if sniff(path) != "safetensors":
        raise ModelError(f"{path} is not a safetensors file", "Convert it with 'fommctl models import'.")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_LIMIT, os.path.getsize(path) - 8):
            raise ModelError(f"{path} is truncated or damaged: it claims a header of {length:,} bytes", _DAMAGED)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the header of {path} is damaged", _DAMAGED) from error
    if not isinstance(header, dict) or not all(_is_entry(name, value) for name, value in header.items()):
        raise ModelError(f"the header of {path} is damaged", _DAMAGED)
    return header


def _is_entry(name: str, value: object) -> bool:
    if not isinstance(value, dict):
        return False
    shape = value.get("shape")
    return name == "__metadata__" or (
        isinstance(shape, list) and all(type(side) is int and 0 <= side < 2**63 for side in shape)
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty if it has none."""
    return {str(key): str(value) for key, value in read_header(path).get("__metadata__", {}).items()}


def count_values(path: Path) -> int:
    """Return the number of values in all tensors of a safetensors file."""
    return sum(prod(entry["shape"]) for name, entry in read_header(path).items() if name != "__metadata__")
