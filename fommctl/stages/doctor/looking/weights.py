"""Which weights are here and whole. Large files are hashed up to a sum of bytes; beyond, their size has to do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fommctl.errors import FommctlError
from fommctl.files import file_sha256
from fommctl.host import Host, load_host
from fommctl.models import registry
from fommctl.models.files import read_header, sniff

HASHED = 2 * 2**30
"""Bytes of pulled models that are read to check their SHA-256; a second or two."""


def look(what: str) -> Any:
    """what: `built-in`, `registered`, `record` (hashes that an installer wrote) or `perceptual`."""
    if what == "built-in":
        return built_in(registry.BUILT_IN.path)
    return perceptual() if what == "perceptual" else registered()


def built_in(path: Path | None) -> dict[str, Any]:
    """Of the model file that comes with fommctl; raises FommctlError where it is damaged."""
    if path is None or not path.is_file():
        return {"path": str(path), "fault": "is not there"}
    fault = damage(path)
    return {"path": str(path), "fault": fault, "sha256": file_sha256(path), "size": path.stat().st_size}


def damage(path: Path) -> str | None:
    """What is wrong with a model file, as far as its beginning, its header and its size tell; None where nothing is."""
    try:
        if sniff(path) != "safetensors":
            return None
        tensors = {name: entry for name, entry in read_header(path).items() if name != "__metadata__"}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except FommctlError as error:
        return error.message
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        return f"{path} cannot be read: {error}"
    stated, found = 8 + length + end, path.stat().st_size
    return None if stated == found else f"{path} has {found:,} bytes, its header states {stated:,}"


@cache
def _loaded() -> Host:
    return load_host(check=False)


def registered() -> list[dict[str, Any]]:
    """Every model that can be named with --model, but for the built-in one."""
    found = []
    left = HASHED
    for name, entry in registry.entries(_loaded()).items():
        if name == registry.BUILT_IN.name:
            continue
        here = entry.path.is_file()
        fault, checked = None, False
        if here:
            size = entry.path.stat().st_size
            fault, checked = _fault(entry, hashing=size <= left)
            left -= size if checked else 0
        found.append(
            {
                "name": name,
                "status": entry.status,
                "path": str(entry.path),
                "here": here,
                "fault": fault,
                "checked": checked,
                "shipped": registry.is_shipped(entry.spec),
                "urls": bool(entry.spec and entry.spec.urls),
            }
        )
    return found


def _fault(entry: registry.Entry, *, hashing: bool) -> tuple[str | None, bool]:
    """What is wrong with the file of a model, and whether its SHA-256 was compared."""
    fault = damage(entry.path)
    imported = entry.spec is None or (entry.path.suffix == ".safetensors" and not registry.is_shipped(entry.spec))
    if fault is not None or imported or entry.spec is None:
        return fault, False
    try:
        record = registry.origin(entry.name)
    except FommctlError as error:
        return error.message, False
    size = entry.spec.size or record.get("size")
    if size is not None and size != entry.path.stat().st_size:
        return f"has {entry.path.stat().st_size:,} bytes instead of {size:,}", False
    wanted = entry.spec.sha256 or record.get("sha256")
    if wanted is None or not hashing:
        return None, False
    return (None if file_sha256(entry.path) == wanted else "has another SHA-256 than it should"), True


def perceptual() -> dict[str, Any]:
    """The network of the perceptual loss: whether VGG-19 is in torch hub's cache, and where that is."""
    import torch

    from fommctl.models.perceptual import VGG19_URL

    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_URL.rpartition("/")[2]
    digits = path.stem.rpartition("-")[2]
    whole = path.is_file() and file_sha256(path).startswith(digits)
    return {"path": str(path), "url": VGG19_URL, "here": path.is_file(), "whole": whole}
