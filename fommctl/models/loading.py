"""From the name or path of a model to networks with its weights in them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.api.specs import Architecture, BackendSpec, Groups
from fommctl.errors import ModelError, UsageError
from fommctl.models import registry
from fommctl.models.building import build_backend
from fommctl.models.checkpoint import Checkpoint, read_checkpoint
from fommctl.presets.preset import (
    Preset,
    find_preset,
    load_preset,
    preset_from_data,
    preset_from_text,
    with_usual_defaults,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fommctl.api.protocols import Backend
    from fommctl.host import Host

log = logging.getLogger(__name__)

_LISTED = 8
_HINT = "Leave out --preset to read the architecture off the file, or name the preset that it was trained with."


@dataclass(frozen=True)
class LoadedModel:
    """Networks with weights, and what is known of them."""

    name: str
    """In the registry, or of the file."""
    backend: Backend
    preset: Preset
    metadata: Mapping[str, str]
    """See `Checkpoint.metadata`."""
    notes: tuple[str, ...]
    """How the file was read, where that had to be worked out; short phrases for the user."""
    groups: tuple[str, ...] = ()
    """Groups whose weights came from the file."""
    path: Path | None = None
    """Of the file; None where the weights come from none."""


def load_model(model: str | None, host: Host, *, preset: str | None = None, sets: Sequence[str] = ()) -> LoadedModel:
    """Load a model on the CPU, in eval mode.

    model: a name of the registry, the path of a file, or None: the weights registered for `preset`, else the built-in
    model.  preset: name or path of the architecture; without it the file's own counts, then that of the registry, then
    what the tensors tell.  sets: `KEY=VALUE` over the preset.

    Raises UsageError (unknown name, ambiguous architecture), MissingError (weights not pulled), ModelError (a file that
    cannot be used; tensors that do not fit are listed by name).
    """
    chosen = load_preset(preset, host, sets=sets) if preset is not None else None
    entry, path = _locate(model, chosen, host)
    name = entry.name if entry is not None else file_stem(path)
    return load_file(path, host, name=name, entry=entry, preset=chosen, sets=sets)


def load_file(
    path: Path,
    host: Host,
    *,
    name: str,
    entry: registry.Entry | None = None,
    preset: Preset | str | None = None,
    sets: Sequence[str] = (),
) -> LoadedModel:
    """Load the model file at `path` as the registered model `entry`, if it is one; see `load_model`.

    sets: over what is not a finished preset.
    """
    chosen = load_preset(preset, host, sets=sets) if isinstance(preset, str) else preset
    checkpoint = read_model(path, host)
    notes: tuple[str, ...] = ()
    if chosen is None and "preset" in checkpoint.metadata:
        chosen = _stored_preset(checkpoint, name, host, sets)
    if chosen is None and entry is not None and entry.preset:
        chosen = load_preset(entry.preset, host, sets=sets)
    if chosen is None:
        chosen, notes = _read_off(checkpoint, name, host, sets)
    spec: BackendSpec = host.find("backend", chosen.backend)
    backend = build_backend(spec, chosen.model_params)
    groups = fit(backend, spec, checkpoint, chosen.name)
    if notes:
        log.warning("%s: no preset given, so its architecture was read off its tensors: %s", name, "; ".join(notes))
    return LoadedModel(name, backend, chosen, checkpoint.metadata, notes, groups, path)


def read_model(path: Path, host: Host) -> Checkpoint:
    """A checkpoint whose tensors have the names and shapes of our networks, whoever published it. Raises ModelError."""
    checkpoint = read_checkpoint(path)
    groups: Groups = checkpoint.groups
    for spec in host.backends.values():
        groups = spec.from_published(groups)
    return replace(checkpoint, groups={group: dict(tensors) for group, tensors in groups.items()})


def locate(model: str | None, host: Host) -> Path:
    """The file of a name of the registry, or the path as it is; of None as for `load_model`. Raises as it does."""
    return _locate(model, None, host)[1]


def fit(backend: Backend, spec: BackendSpec, checkpoint: Checkpoint, preset: str) -> tuple[str, ...]:
    """Copy the weights of `checkpoint` into the networks of `backend`; returns the groups that were filled.

    Groups that the backend may do without (a discriminator) are left alone where the file has none. Raises ModelError
    listing every kind of tensor that does not fit, by name.
    """
    networks = backend.modules()
    lacking = [group for group in spec.groups if group not in checkpoint.groups]
    if lacking:
        held = ", ".join(checkpoint.groups)
        raise ModelError(
            f"{checkpoint.path} lacks the networks {', '.join(lacking)} of a {spec.name} model; it holds {held}", _HINT
        )
    wanted = [
        group for group in (*spec.groups, *spec.optional_groups) if group in checkpoint.groups and group in networks
    ]
    missing, unexpected, misshapen = [], [], []
    for group in wanted:
        own, given = networks[group].state_dict(), checkpoint.groups[group]
        missing += [f"{group}/{n} {tuple(own[n].shape)}" for n in own if n not in given and not _may_be_absent(n)]
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


def _locate(model: str | None, preset: Preset | None, host: Host) -> tuple[registry.Entry | None, Path]:
    """The registered model and its file; no registered model where `model` is a path."""
    if model is None:
        if preset is None:
            entry = registry.default(host)
        else:
            entry = registry.for_preset(preset.name, lambda name: _proper_name(name, host), host)
        return entry, registry.file_of(entry)
    path = Path(model).expanduser()
    if model not in registry.entries(host) and (path.name != model or path.suffix or path.exists()):
        return None, path
    entry = registry.find(model, host)
    return entry, registry.file_of(entry)


def _proper_name(preset: str, host: Host) -> str:
    """`vox-256` for `vox`; the name as it is where no such preset is installed."""
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
    """A preset made from what the tensors tell, and the notes on what was read and what was assumed."""
    read: dict[str, Architecture] = {}
    for backend, spec in host.backends.items():
        architecture = spec.read_architecture(checkpoint.groups)
        if architecture is not None:
            read[backend] = architecture
    if not read:
        held = ", ".join(checkpoint.groups)
        raise ModelError(
            f"{checkpoint.path} is of no known kind of model; its groups are {held}",
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


def _may_be_absent(name: str) -> bool:
    """Counters, and the anti-alias filter, which follows from the architecture."""
    return _is_counter(name) or name == "down.weight" or name.endswith(".down.weight")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def file_stem(path: Path) -> str:
    """The name of a model file without its ending: `vox-cpk` of `vox-cpk.pth.tar`."""
    return path.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")
