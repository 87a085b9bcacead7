"""Presets: complete configurations by name or by the path of a YAML file in the published schema.

Precedence, lowest first: named preset, file, `--set KEY=VALUE`, command-line option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api.specs import PresetSpec
from fommctl.errors import UsageError
from fommctl.presets.config import (
    Layer,
    did_you_mean,
    load_yaml,
    merge,
    nearest,
    origin,
    parse_sets,
    parse_yaml,
    problems_error,
    single_value,
)

if TYPE_CHECKING:
    from fommctl.api.specs import BackendSpec
    from fommctl.host import Host
    from fommctl.presets.sections import Preset

_SUFFIXES = (".yaml", ".yml")


def presets_root() -> Path:
    """Return the folder of the shipped presets: inside the package if installed from a wheel, else next to it."""
    package = Path(__file__).parents[1]
    packed = package / "_presets"
    return packed if packed.is_dir() else package.parent / "presets"


def preset_specs(host: Host) -> dict[str, PresetSpec]:
    """Return all named presets, shipped ones and those of plugins, by name.

    `NAME` is an alias of a shipped `NAME-256`. Raises UsageError if a plugin's preset has the name of a shipped one.
    """
    specs = {}
    for path in sorted(presets_root().glob("*.yaml")):
        family = path.stem.removesuffix("-256")
        aliases = (family,) if family != path.stem else ()
        specs[path.stem] = PresetSpec(name=path.stem, summary="", path=path, aliases=aliases)
    shipped = {name for spec in specs.values() for name in (spec.name, *spec.aliases)}
    for other in host.presets.values():
        clash = shipped.intersection((other.name, *other.aliases))
        if clash:
            raise UsageError(
                f"a plugin's preset has the name of the shipped preset '{min(clash)}'",
                f"Its file is {other.path}; remove the plugin or restrict FOMMCTL_PLUGINS.",
            )
    return {**specs, **host.presets}


def preset_names(host: Host) -> tuple[str, ...]:
    """Return the names of all presets, without aliases, in alphabetical order."""
    return tuple(sorted(preset_specs(host)))


def find_preset(name: str, host: Host) -> PresetSpec:
    """Return the preset of this name or alias. Raises UsageError, with the nearest name, if there is none."""
    specs = preset_specs(host)
    by_alias = {alias: spec for spec in specs.values() for alias in spec.aliases}
    spec = specs.get(name) or by_alias.get(name)
    if spec is not None:
        return spec
    match = nearest(name, [*specs, *by_alias])
    hint = f"Did you mean '{match}'? " if match else ""
    raise UsageError(
        f"unknown preset '{name}'",
        f"{hint}Known: {', '.join(sorted(specs)) or 'none'}; or give the path of a YAML file.",
    )


def locate_preset(name_or_path: str, host: Host) -> tuple[str, Path]:
    """Return the name and file of a preset that is given by name, alias or path; a file may not exist.

    Raises UsageError for an unknown name.
    """
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix.lower() in _SUFFIXES or len(path.parts) > 1:
        return path.stem, path
    spec = find_preset(name_or_path, host)
    return spec.name, spec.path


def load_preset(
    name_or_path: str, host: Host, *, sets: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Preset:
    """Load a preset by name, alias or path, with overrides.

    A file may leave out sections, and with `extends: NAME` it changes a named preset.
    sets: `KEY=VALUE` texts.  options: values of command-line options by dotted key; None counts as not given.
    Raises UsageError with all problems, each with its file and line.
    """
    name, path = locate_preset(name_or_path, host)
    return resolve(load_yaml(path), host, name=name, sets=sets, options=options)


def preset_from_text(text: str, host: Host, *, source: str, sets: Sequence[str] = ()) -> Preset:
    """Return a preset from YAML text, such as a checkpoint's metadata.

    source: name of the text in messages.  sets: `KEY=VALUE` overrides.  Raises UsageError with all problems.
    """
    return resolve(parse_yaml(text, source), host, name=source, sets=sets)


def preset_from_data(data: Mapping[str, Any], host: Host, *, source: str, sets: Sequence[str] = ()) -> Preset:
    """Return a preset from plain data, such as an architecture derived from a checkpoint.

    source: name of the data in messages.  sets: `KEY=VALUE` overrides.  Raises UsageError with all problems.
    """
    return resolve(Layer(dict(data), {(): source}), host, name=source, sets=sets)


def with_usual_defaults(preset: Preset, host: Host) -> Preset:
    """Return the preset with the named preset's current defaults of `animate`, if it was stored without any."""
    found = preset_specs(host).get(preset.name)
    pairs = preset.pairs()
    if found is None or pairs.defaults is not None:
        return preset
    try:
        usual = load_preset(found.name, host).pairs().defaults
    except UsageError:
        # A broken named preset is reported to those who use it.
        return preset
    if usual is None:
        return preset
    name = next((name for name, section in preset if section is pairs), "animate_params")
    return preset.model_copy(update={name: pairs.model_copy(update={"defaults": usual})})


def resolve(
    layer: Layer, host: Host, *, name: str, sets: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Preset:
    """Apply the overrides to `layer`, validate the result and build the preset; only here is the precedence defined.

    name, sets, options: as for `load_preset`.  Raises UsageError with all problems.
    """
    from fommctl.presets.sections import check, preset_schema

    given = {dotted: value for dotted, value in (options or {}).items() if value is not None}
    overrides = [single_value(dotted, value, f"the option for {dotted}") for dotted, value in given.items()]
    layers = [layer, *parse_sets(sets), *overrides]
    base = layer.data.get("extends")
    if base is not None:
        below = load_yaml(find_preset(str(base), host).path)
        layers.insert(0, replace(below, data={**below.data, "name": name}))
    layers = [_with_current_names(each) for each in layers]
    merged = {key: value for key, value in merge(layers).items() if value is not None and key != "extends"}
    problems: list[str] = []
    spec = _backend(merged, layers, host, problems)
    known = {"name": name, "backend": spec.name if spec else ""}
    preset, found = check(preset_schema(spec), layers, {**known, **merged})
    problems += found
    if problems or preset is None:
        raise problems_error(problems, "'fommctl presets show NAME' prints a complete configuration to compare with.")
    return preset


def _backend(merged: Mapping[str, Any], layers: Sequence[Layer], host: Host, problems: list[str]) -> BackendSpec | None:
    """Return the backend that the configuration names, else the one that recognises its keys with most certainty.

    problems: receives a message if there is none, or several.
    """
    name = merged.get("backend")
    if isinstance(name, str):
        if name in host.backends:
            return host.backends[name]
        problems.append(
            f"{origin(layers, ('backend',))}: unknown backend '{name}'{did_you_mean(name, host.backends)}"
            f"; installed: {', '.join(host.backends) or 'none'}"
        )
    params = merged.get("model_params")
    if not isinstance(params, dict):
        if params is not None:
            problems.append(f"{origin(layers, ('model_params',))}: 'model_params' should be a mapping")
        return None
    certainty = {
        each: float(host.ask("backend", each, "recognises", deepcopy(params), default=0)) for each in host.backends
    }
    found = [host.backends[each] for each in certainty if 0 < certainty[each] == max(certainty.values())]
    if len(found) == 1:
        return found[0]
    if name is not None:
        return None
    who = f"{', '.join(spec.name for spec in found)} all recognise" if found else "no installed backend recognises"
    problems.append(f"{origin(layers, ('model_params',))}: {who} these model_params; say which with 'backend: NAME'")
    return None


def _with_current_names(layer: Layer) -> Layer:
    """Rename `image_shape`, the name in older published files, to `frame_shape`."""
    params = layer.data.get("dataset_params")
    if not isinstance(params, dict) or "image_shape" not in params or "frame_shape" in params:
        return layer
    renamed = {("frame_shape" if key == "image_shape" else key): value for key, value in params.items()}
    old, new = ("dataset_params", "image_shape"), ("dataset_params", "frame_shape")
    origins = {(new + key[2:] if key[:2] == old else key): text for key, text in layer.origins.items()}
    return Layer({**layer.data, "dataset_params": renamed}, origins)


def summary_of(spec: PresetSpec) -> str:
    """Return a preset's summary from its spec, else from its file, or why the file cannot be read."""
    if spec.summary:
        return spec.summary
    try:
        return str(load_yaml(spec.path).data.get("summary") or "")
    except UsageError as error:
        return f"unusable: {error.message}"
