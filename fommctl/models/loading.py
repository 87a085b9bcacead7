"""Loading of models by name or path into networks, and their import and export."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fommctl import __version__
from fommctl.api.specs import PROJECT, Architecture, BackendSpec
from fommctl.errors import ModelError, OutputError, UsageError
from fommctl.files import FileFingerprint, atomic_write, remove_stale_files, temporary_path
from fommctl.home import model_lock
from fommctl.media.output_paths import check_target
from fommctl.models import registry
from fommctl.models.checkpoint import Checkpoint, halved, read_checkpoint, write_native
from fommctl.models.files import ENDINGS, read_metadata, sniff, weights_in, weights_sha256
from fommctl.presets.preset import (
    find_preset,
    load_preset,
    preset_from_data,
    preset_from_text,
    with_usual_defaults,
)
from fommctl.presets.sections import Preset

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor, nn

    from fommctl.api.protocols import Backend
    from fommctl.api.specs import BackendSpec
    from fommctl.host import Host


MOST_VALUES = 400_000_000
"""Numbers in all networks of a model together, 1.6 GB; the largest published ones have a quarter of that."""


def build_backend(spec: BackendSpec, params: BaseModel) -> Backend:
    """Return the backend with fresh weights. Raises UsageError for networks of more than MOST_VALUES numbers, before
    they take memory: a preset that is wrong by a few digits, or hostile, describes terabytes."""
    with _Bounded(spec.name):
        backend: Backend = spec.build(params)
    return backend


class _Bounded(TorchFunctionMode):
    """Counts what `torch.empty`, which makes the weights of every layer, is asked for."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._values = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty:
            sides = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            self._values += prod(sides)
            if self._values > MOST_VALUES:
                raise UsageError(
                    f"the preset describes {self._backend} networks of more than {MOST_VALUES:,} values",
                    "Lower block_expansion, max_features or num_kp in its model_params.",
                )
        return func(*args, **(kwargs or {}))


log = logging.getLogger(__name__)

_LISTED = 8
_HINT = "Leave out --preset to read the architecture off the file, or name the preset that it was trained with."


@dataclass(frozen=True)
class LoadedModel:
    """Networks with weights, and what is known about them."""

    name: str
    """Name in the registry, or of the file."""
    backend: Backend
    preset: Preset
    metadata: Mapping[str, str]
    """See `Checkpoint.metadata`."""
    notes: tuple[str, ...]
    """Short phrases for the user on how the file was read, where that had to be worked out."""
    groups: tuple[str, ...] = ()
    """Groups whose weights came from the file."""
    path: Path | None = None
    """Path of the file; None for weights that do not come from a file."""
    fingerprint: FileFingerprint | None = None
    """State of the file before it was read."""
    publisher: str | None = None
    """Distribution and version of the plugin whose backend it is; None for fommctl's own, whose results are kept from
    version to version."""


def load_model(model: str | None, host: Host, *, preset: str | None = None, sets: Sequence[str] = ()) -> LoadedModel:
    """Load a model on the CPU, in eval mode.

    model: a name of the registry, the path of a file, or None: the weights registered for `preset`, else the built-in
    model.  preset: name or path of the architecture; default: the file's own, then the registry's, then
    one derived from the tensors.  sets: `KEY=VALUE` over the preset.

    Raises UsageError (unknown name, ambiguous architecture), MissingError (weights not pulled), ModelError (a file that
    cannot be used; tensors that do not fit are listed by name).
    """
    chosen = load_preset(preset, host, sets=sets) if preset is not None else None
    entry, path = _locate(model, chosen, host)
    name = entry.name if entry is not None else file_stem(path)
    return load_file(path, host, name=name, entry=entry, preset=chosen, sets=sets)


def backend_of(model: str | None, preset: str | None, host: Host) -> str:
    """Return the name of the backend that `load_model` would load, by reading no weights where something else tells.
    Raises as it does."""
    if preset is None and model is not None:
        entry, path = _locate(model, None, host)
        if path.is_file() and sniff(path) == "safetensors" and (named := read_metadata(path).get("backend")):
            return named
        preset = entry.preset if entry is not None else None
    return load_preset(preset, host).backend if preset else load_model(model, host).preset.backend


def load_file(
    path: Path,
    host: Host,
    *,
    name: str,
    entry: registry.RegisteredModel | None = None,
    preset: Preset | str | None = None,
    sets: Sequence[str] = (),
) -> LoadedModel:
    """Load the model file at `path` as the registered model `entry`, if it is one; see `load_model`.

    sets: `KEY=VALUE` over any preset but a finished `Preset`, which is used as it is.
    """
    chosen = load_preset(preset, host, sets=sets) if isinstance(preset, str) else preset
    fingerprint = FileFingerprint.of(*weights_in(path)) if path.exists() else None
    checkpoint = read_checkpoint(path)
    notes: tuple[str, ...] = ()
    if chosen is None and "preset" in checkpoint.metadata:
        chosen = _stored_preset(checkpoint, name, host, sets)
    if chosen is None and entry is not None and entry.preset:
        chosen = load_preset(entry.preset, host, sets=sets)
    if chosen is None:
        chosen, notes = _read_off(checkpoint, name, host, sets)
    spec: BackendSpec = host.find("backend", chosen.backend)
    backend = build_backend(spec, chosen.model_params)
    groups = load_weights(backend, spec, _in_layout(checkpoint, spec), chosen.name)
    if notes:
        log.warning(
            "%s: no preset given, so its architecture was inferred from its tensors: %s", name, "; ".join(notes)
        )
    version = host.version("backend", spec.name)
    publisher = None if version.startswith(f"{PROJECT} ") else version
    return LoadedModel(name, backend, chosen, checkpoint.metadata, notes, groups, path, fingerprint, publisher)


def read_model(path: Path, spec: BackendSpec) -> Checkpoint:
    """Return a checkpoint whose tensors have the names and shapes of this backend's networks, published or ours. Raises
    ModelError."""
    return _in_layout(read_checkpoint(path), spec)


def _in_layout(checkpoint: Checkpoint, spec: BackendSpec) -> Checkpoint:
    groups = spec.from_published(checkpoint.groups)
    return replace(checkpoint, groups={group: dict(tensors) for group, tensors in groups.items()})


def fixed_buffers(network: nn.Module) -> set[str]:
    """Return the names of buffers determined by the architecture: all except normalisation statistics."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if not hasattr(module, "running_mean")
        for name, _ in module.named_buffers(recurse=False)
    }


def locate(model: str | None, host: Host) -> Path:
    """Return the file of a name of the registry, or the path as it is; of None as for `load_model`. Raises as it
    does."""
    return _locate(model, None, host)[1]


def load_weights(backend: Backend, spec: BackendSpec, checkpoint: Checkpoint, preset: str) -> tuple[str, ...]:
    """Copy the weights of `checkpoint` into the networks of `backend`; returns the groups that were filled.

    Groups that the model does without (a discriminator) are left unchanged if the file has none. Raises ModelError
    listing every kind of tensor that does not fit, by name.
    """
    networks = backend.modules()
    lacking = [group for group in backend.needed_groups() if group not in checkpoint.groups]
    if lacking:
        held = ", ".join(checkpoint.groups)
        raise ModelError(
            f"{checkpoint.path} lacks the networks {', '.join(lacking)} of a {spec.name} model; it holds {held}", _HINT
        )
    wanted = [group for group in networks if group in checkpoint.groups]
    missing, unexpected, misshapen = [], [], []
    for group in wanted:
        own, given = networks[group].state_dict(), checkpoint.groups[group]
        free = fixed_buffers(networks[group])
        missing += [
            f"{group}/{n} {tuple(own[n].shape)}" for n in own if n not in given and n not in free and not _is_counter(n)
        ]
        unexpected += [f"{group}/{n} {tuple(given[n].shape)}" for n in given if n not in own and not _is_counter(n)]
        misshapen += [
            f"{group}/{n} {tuple(given[n].shape)} instead of {tuple(own[n].shape)}"
            for n in given
            if n in own and given[n].shape != own[n].shape
        ]
    problems = [
        f"\n  {len(names)} {kind}: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", misshapen))
        if names
    ]
    if problems:
        raise ModelError(f"{checkpoint.path} does not fit the preset {preset}:{''.join(problems)}", _HINT)
    for group in wanted:
        _copy(networks[group], checkpoint.groups[group])
    return tuple(wanted)


def _locate(model: str | None, preset: Preset | None, host: Host) -> tuple[registry.RegisteredModel | None, Path]:
    """Return the registered model and its file; no registered model where `model` is a path."""
    if model is None:
        if preset is None:
            entry = registry.default(host)
        else:
            entry = registry.for_preset(preset.name, lambda name: _proper_name(name, host), host)
        return entry, registry.file_of(entry)
    path = Path(os.path.expanduser(model))
    if model not in registry.entries(host) and (path.name != model or path.suffix or path.exists()):
        return None, path
    entry = registry.find(model, host)
    return entry, registry.file_of(entry)


def _proper_name(preset: str, host: Host) -> str:
    """Return `vox-256` for `vox`; the name as it is where no such preset is installed."""
    try:
        return find_preset(preset, host).name
    except UsageError:
        return preset


def _stored_preset(checkpoint: Checkpoint, name: str, host: Host, sets: Sequence[str]) -> Preset:
    text = checkpoint.metadata["preset"]
    try:
        preset = with_usual_defaults(preset_from_text(text, host, source=name), host)
    except UsageError as error:
        raise ModelError(
            f"the preset stored in {checkpoint.path} cannot be used: {error.message}", "Give another one with --preset."
        ) from error
    return preset_from_text(preset.text(), host, source=name, sets=sets) if sets else preset


def _read_off(checkpoint: Checkpoint, name: str, host: Host, sets: Sequence[str]) -> tuple[Preset, tuple[str, ...]]:
    """Return a preset derived from the tensors, and notes on what was read and what was assumed."""
    read: dict[str, Architecture] = {}
    unclear: list[UsageError] = []
    for backend in host.backends:
        # Each backend gets its own copy: translating names changes it.
        given = {group: dict(tensors) for group, tensors in checkpoint.groups.items()}
        try:
            groups = host.ask("backend", backend, "from_published", given, default={})
            architecture = host.ask("backend", backend, "read_architecture", groups, default=None)
        except UsageError as error:
            unclear.append(error)
            continue
        if architecture is not None:
            read[backend] = architecture
    if not read and unclear:
        raise unclear[0]
    if not read:
        held = ", ".join(checkpoint.groups)
        raise ModelError(
            f"{checkpoint.path} is not a known kind of model; its groups are {held}",
            "Name the preset that it was trained with: --preset NAME.",
        )
    if len(read) > 1:
        raise UsageError(
            f"{checkpoint.path} could be of {' or '.join(read)}",
            "Name the preset that it was trained with: --preset NAME.",
        )
    backend, architecture = read.popitem()
    mapping: dict[str, object] = {"backend": backend, "model_params": dict(architecture.model_params)}
    if architecture.frame_shape is not None:
        mapping["dataset_params"] = {"frame_shape": list(architecture.frame_shape)}
    return preset_from_data(mapping, host, source=name, sets=sets), architecture.notes


def _copy(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = network.state_dict().keys()
    network.load_state_dict({n: tensor for n, tensor in tensors.items() if n in own}, strict=False)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def file_stem(path: Path) -> str:
    """Return the name of a model file without its suffix: `vox-cpk` of `vox-cpk.pth.tar`."""
    return path.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")


def import_model(
    path: Path,
    host: Host,
    *,
    name: str | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    half: bool = False,
    licence: str | None = None,
    summary: str | None = None,
    overwrite: bool = False,
) -> LoadedModel:
    """Read any model file, check that it fits its architecture, and keep it in FOMMCTL_HOME as `name`.

    preset: as in `load_model`; where neither it nor the file says, the preset registered for `name` counts.
    half: store weights in half precision (see `halved`).
    Raises UsageError for a name that is taken or cannot be used, otherwise as `load_model` does.
    """
    name = name or file_stem(path)
    registry.import_path(name, host, overwrite)
    loaded = load_file(path, host, name=name, entry=registry.entries(host).get(name), preset=preset, sets=sets)
    networks = loaded.backend.modules()
    groups = {group: dict(networks[group].state_dict()) for group in loaded.groups}
    spec = host.models.get(name)
    metadata = {
        **loaded.metadata,
        "backend": loaded.preset.backend,
        "preset": loaded.preset.text(),
        "licence": licence or loaded.metadata.get("licence") or (spec.licence if spec else ""),
        "summary": summary or loaded.metadata.get("summary") or (spec.summary if spec else ""),
        "imported_from": f"{path.name}, SHA-256 {weights_sha256(path)}",
        "imported_by": f"fommctl {__version__}",
    }
    with model_lock(name):
        target = registry.import_path(name, host, overwrite)
        remove_stale_files(target.parent, target)
        write_native(
            target, halved(groups) if half else groups, {key: value for key, value in metadata.items() if value}
        )
    return loaded


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    path: Path
    model: str
    """Name of the exported model."""
    groups: tuple[str, ...]
    """Networks that it holds."""
    epoch: int
    """Epochs that the model was trained for; 0 if unknown."""


def export_model(
    model: str,
    target: Path,
    host: Host,
    *,
    preset: str | None = None,
    sets: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Write {"generator": {name: tensor}, "kp_detector": ..., "discriminator": ... where the model has one, "epoch"}.

    model: as in `load_model`: also a checkpoint of a run, whose averaged weights count where it keeps them.  Tensors
    are float32 (counters stay integers) under the names of the published implementation, and the file is one that
    `torch.load(weights_only=True)` reads. A target without such an ending is a folder with a file for each network or
    several, where the family publishes its weights so.

    Raises UsageError where `target` exists (without `overwrite`), is the model itself or a .safetensors, OutputError
    where it cannot be written, otherwise as `load_model` does.
    """
    if target.suffix == ".safetensors":
        raise UsageError(
            f"{target} has the extension of another kind of file",
            "A published checkpoint is a torch file: NAME.pth.tar.",
        )
    source = locate(model, host)
    check_target(target, overwrite, [source])
    loaded = load_model(model, host, preset=preset, sets=sets)
    networks = loaded.backend.modules()
    epoch = _epoch(loaded.metadata.get("training"))
    spec: BackendSpec = host.find("backend", loaded.preset.backend)
    groups = spec.to_published({group: networks[group].state_dict() for group in loaded.groups})
    content = {group: _plain(tensors) for group, tensors in groups.items()}
    if spec.published_files and not target.name.endswith(ENDINGS):
        _write_folder(target, content, spec.published_files)
    else:
        _save({**content, "epoch": epoch}, target)
    return Exported(target, loaded.name, loaded.groups, epoch)


def _save(content: Mapping[str, object], target: Path) -> None:
    # Through memory: on a full disk, torch.save reports only a position in the file.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_write(target) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _write_folder(
    target: Path, groups: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, tuple[str, ...]]
) -> None:
    """Write the files of a model into a new folder, all or none. Raises UsageError and OutputError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} already exists", "Choose a new folder, or a file such as NAME.pth.")
    folder = temporary_path(target)
    try:
        for name, members in files.items():
            inside = {group: groups[group] for group in members if group in groups}
            if inside:
                _save(inside[members[0]] if len(members) == 1 else inside, folder / f"{name}.pth")
        folder.rename(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "Choose another folder.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies with memory of their own: torch.save would write the whole storage behind a view."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _epoch(training: str | None) -> int:
    """Return the epoch after which a model was saved; 0 if unknown.

    training: JSON from a model's metadata, which is not trusted.
    """
    try:
        epoch = json.loads(training or "{}")["epoch"]
    except (ValueError, KeyError, TypeError):
        return 0
    return epoch if isinstance(epoch, int) else 0
