"""Reading published checkpoints and native model files, safely; writing native ones.

A checkpoint is groups of named tensors: {"generator": {"first.conv.weight": (64, 3, 7, 7), ...}, "kp_detector": ...}.
Nothing in a file is ever executed, and sizes that a file declares are never trusted.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fommctl.errors import ModelError, first_line, out_of_memory
from fommctl.files import atomic_write
from fommctl.models.files import read_metadata, sniff, weights_in
from fommctl.models.pickles import LONGEST_PICKLE, Refused, check_pickle

FORMAT = "fommctl"
FORMAT_VERSION = 1
_SLACK = 16 * 2**20
_LEGACY_PICKLES = 5
"""The number of pickles in a torch file of the older kind: magic number, version, machine, content, and what numbers
follow."""
_DAMAGED = "Copy or download it again."
_FORBIDDEN = re.compile(r"(?:GLOBAL|function|class|module) `?([\w.]+)")
"""The common part of torch's error messages: the word before the name that a pickle tried to import or call."""

LOOSE = "state_dict"
"""Name of the group for tensors that a file holds outside any group."""

Groups = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model file, float32 on the CPU (counters stay integers), by group and name."""

    groups: Groups
    metadata: Mapping[str, str]
    """Metadata of a native file: format_version, backend, preset (YAML), licence, training (JSON), ...; of a published
    one: only training, with the numbers stored besides the networks (epoch); of a run's checkpoint also the preset."""
    path: Path


def read_checkpoint(path: Path, *, loose: bool = False) -> Checkpoint:
    """Read a published `.pth.tar` (both formats that torch wrote) or a native safetensors file.

    A folder is read as the groups of all its files; a file that holds one network without naming it gives it its own
    name, and so does one that repeats a group of another (`NAME:GROUP`).

    loose: a safetensors file may hold one network without naming it too, as those of a folder may.

    Optimiser states are left out, and the prefix `module.` of torch's DataParallel is removed.
    Raises ModelError with the reason: not a model file, truncated or damaged, a pickle that would run code, entries
    that are not tensors, tensors that declare more than the file holds, or NaN or infinity in them.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    kind = sniff(path)
    if kind == "safetensors":
        groups, metadata = _read_native(path, loose)
    else:
        groups, metadata = _read_published(path, in_place=kind == "torch zip" and _zip_is_plain(path))
    _check_tensors(groups, path)
    return Checkpoint({group: _in_float32(group, tensors, path) for group, tensors in groups.items()}, metadata, path)


def _read_folder(path: Path) -> Checkpoint:
    groups: Groups = {}
    metadata: dict[str, str] = {}
    for file in weights_in(path):
        part = read_checkpoint(file, loose=True)
        stem = file.name.partition(".")[0]
        for group, tensors in part.groups.items():
            name = stem if list(part.groups) == [LOOSE] else group
            groups[f"{stem}:{group}" if name in groups else name] = tensors
        metadata |= part.metadata
    return Checkpoint(groups, metadata, path)


def read_content(path: Path, *, in_place: bool = False) -> Any:
    """Return the object that torch saved in a file, of any type; tensors on the CPU. Raises ModelError as
    read_checkpoint does.

    in_place: leave tensors in the file until they are used, where nothing in it is compressed.
    """
    plain = sniff(path) == "torch zip" and _zip_is_plain(path)
    return _load(path, in_place=in_place and plain)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a torch file that holds names and tensors and no groups, as torch hub has them; on the CPU.

    Raises ModelError as read_checkpoint does.
    """
    path = Path(path)
    content = read_content(path, in_place=True)
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{path} contains no named tensors", "Is it the right file?")
    for name, item in content.items():
        if not isinstance(name, str) or not isinstance(item, Tensor):
            raise ModelError(f"{path}: {name} is a {type(item).__name__}, not a tensor", "Is it the right file?")
    _check_tensors({"tensors": content}, path)
    return _in_float32("tensors", content, path)


def write_native(path: Path, groups: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Write a native model file: safetensors, tensors named `group/name`, with metadata, atomically.

    metadata: backend, preset (resolved YAML), licence, ...; format and format version are added.
    Raises OutputError if the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{group}/{name}": tensor.detach().cpu().clone().contiguous() for group, name, tensor in _triples(groups)
    }
    content = save(tensors, {**metadata, "format": FORMAT, "format_version": str(FORMAT_VERSION)})
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def halved(groups: Mapping[str, Mapping[str, Tensor]]) -> Groups:
    """Return the same groups with weights in half precision.

    Biases and statistics (one axis or none) keep their precision, since they are small, and so does a tensor
    with values outside the range of half precision.
    """

    def half(tensor: Tensor) -> Tensor:
        fits = (
            tensor.is_floating_point() and tensor.dim() > 1 and bool((tensor.abs() < torch.finfo(torch.half).max).all())
        )
        return tensor.half() if fits else tensor

    return {group: {name: half(tensor) for name, tensor in tensors.items()} for group, tensors in groups.items()}


def _read_native(path: Path, loose: bool) -> tuple[Groups, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    metadata = read_metadata(path)
    version = metadata.get("format_version", "1")
    if metadata.get("format", FORMAT) == FORMAT and version != str(FORMAT_VERSION):
        raise ModelError(f"{path} has format version {version}, this fommctl reads {FORMAT_VERSION}", "Update fommctl.")
    groups: Groups = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118 - the opened file is no mapping
                group, separator, name = key.partition("/")
                if not separator and loose:
                    group, name = LOOSE, key
                elif not separator:
                    raise ModelError(
                        f"{path} is not a fommctl model: tensor {key!r} names no group",
                        "Convert it with its own tools first.",
                    )
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or damaged: {first_line(error)}", _DAMAGED) from error
    if not groups:
        raise ModelError(f"{path} contains no tensors", _DAMAGED)
    return groups, metadata


def _zip_is_plain(path: Path) -> bool:
    """Check a torch zip file (complete, undamaged, of plausible unpacked size); return whether
    nothing in it is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {entry.filename.rpartition("/")[2] for entry in entries}
            if "data.pkl" not in names:
                raise ModelError(
                    f"{path} is a zip archive, not a torch checkpoint", "Unpack it; the model may be inside."
                )
            if "constants.pkl" in names:
                raise ModelError(f"{path} is a TorchScript program, not a checkpoint", "Save its state dicts instead.")
            if sum(entry.file_size for entry in entries) > 4 * os.path.getsize(path) + _SLACK:
                raise ModelError(f"{path} unpacks to far more than its size", "The file is damaged or hostile.")
            if any(entry.file_size > LONGEST_PICKLE for entry in entries if entry.filename.endswith("/data.pkl")):
                raise ModelError(f"{path} contains more names than a model does", "The file is damaged or hostile.")
            damaged = archive.testzip()
    except ModelError:
        raise
    except Exception as error:  # zipfile raises errors of any kind.
        raise ModelError(f"{path} is truncated or damaged: {first_line(error)}", _DAMAGED) from error
    if damaged is not None:
        raise ModelError(f"{path} is damaged: the checksum of {damaged} does not match", _DAMAGED)
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _read_published(path: Path, in_place: bool) -> tuple[Groups, dict[str, str]]:
    content = _load(path, in_place)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not groups of tensors", "Is it the right file?")
    groups = _groups_of(content, path)
    average = content.get("average")
    if "fommctl" in content and isinstance(average, dict) and average:
        # If a run keeps averaged weights, they are the model.
        groups |= _groups_of(average, path)
    return groups, _about(content)


def _load(path: Path, in_place: bool) -> Any:
    """Read a checkpoint of torch.

    in_place: leave the tensors in the file until they are used, so that optimiser states are never read.
    """
    import pickle

    _check_pickles(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=in_place or None)
    except pickle.UnpicklingError as error:
        forbidden = _FORBIDDEN.search(str(error))
        if forbidden is None:
            raise ModelError(
                f"{path} is not a torch checkpoint: its pickle is damaged", "Is it the right file?"
            ) from error
        raise ModelError(
            f"{path} is refused: it tries to call {forbidden[1]}, but a model needs no code",
            "Do not use this file unless you know who made it; nothing in it was run.",
        ) from error
    except Exception as error:  # Parsers raise errors of any kind on damaged files.
        if out_of_memory(error):
            raise ModelError(f"not enough memory for {path}", "Free some, or use a smaller model.") from error
        raise ModelError(f"{path} is truncated or damaged: {first_line(error)}", _DAMAGED) from error


def _check_pickles(path: Path) -> None:
    """Raise ModelError if a pickle in a torch file would call something, or use unbounded memory or time."""
    size = os.path.getsize(path)
    try:
        with path.open("rb") as file:
            if sniff(path) == "torch zip":
                with zipfile.ZipFile(file) as archive:
                    for entry in archive.infolist():
                        if entry.filename.rpartition("/")[2] == "data.pkl":
                            with archive.open(entry) as packed:
                                check_pickle(BytesIO(packed.read(LONGEST_PICKLE)), 4 * size + _SLACK)
            else:
                for _ in range(_LEGACY_PICKLES):
                    check_pickle(file, size)
    except Refused as refusal:
        raise ModelError(
            f"{path} {refusal}", "Do not use this file unless you know who made it; nothing in it was run."
        ) from refusal
    except Exception as error:  # Parsers raise errors of any kind on damaged files.
        raise ModelError(f"{path} is truncated or damaged: its pickle cannot be read", _DAMAGED) from error


def _groups_of(content: Mapping[Any, Any], path: Path) -> Groups:
    groups: Groups = {}
    loose = sum(isinstance(value, Tensor) for value in content.values())
    if loose and loose == len(content):
        # A network's own state_dict() saved as it is: the same tensors stand under this name in files that wrap it.
        content = {LOOSE: content}
    for key, value in content.items():
        optimiser = isinstance(value, dict) and "param_groups" in value
        if not isinstance(value, dict) or optimiser or not any(isinstance(item, Tensor) for item in value.values()):
            continue
        for name, item in value.items():
            if not isinstance(name, str) or not isinstance(item, Tensor):
                raise ModelError(
                    f"{path}: {key}/{name} is a {type(item).__name__}, not a tensor", "Is it the right file?"
                )
        parallel = all(name.startswith("module.") for name in value)
        groups[str(key)] = {name.removeprefix("module.") if parallel else name: item for name, item in value.items()}
    if not groups:
        held = f"{loose} tensors without a group" if loose else "no tensors"
        raise ModelError(
            f"{path} is not a checkpoint: it contains {held}", "A checkpoint contains groups such as generator."
        )
    return groups


def _about(content: Mapping[Any, Any]) -> dict[str, str]:
    """Return the numbers stored besides the networks, and the metadata of a fommctl run."""
    numbers = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, int)}
    about = {"training": json.dumps(numbers)} if numbers else {}
    own = content.get("fommctl")
    if isinstance(own, dict) and isinstance(own.get("preset"), str):
        about["preset"] = own["preset"]
    return about


def _check_tensors(groups: Groups, path: Path) -> None:
    """Check all tensors. Raises ModelError if a tensor is not an array of numbers, or all together declare more than
    the file can hold."""
    total = 0
    for group, name, tensor in _triples(groups):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
            raise ModelError(f"{path}: {group}/{name} is not a plain tensor of numbers", "Is it the right file?")
        size = tensor.numel() * tensor.element_size()
        total += size
        if size > tensor.untyped_storage().nbytes() or total > 2 * os.path.getsize(path) + _SLACK:
            raise ModelError(
                f"{path}: {group}/{name} claims {tuple(tensor.shape)}, more than the file holds",
                "The file is damaged or hostile.",
            )


def _in_float32(group: str, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the same tensors, fractions in float32. Raises ModelError naming the first that holds NaN or infinity."""
    converted = {}
    for name, tensor in tensors.items():
        converted[name] = tensor.detach().float() if tensor.is_floating_point() else tensor
        if not bool(torch.isfinite(converted[name]).all()):
            raise ModelError(
                f"{path}: {group}/{name} contains NaN or infinity", "Training diverged, or the file is damaged."
            )
    return converted


def _triples(groups: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, str, Tensor]]:
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            yield group, name, tensor
