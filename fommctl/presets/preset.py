"""Presets: complete configurations by name or by the path of a YAML file in the published schema.

Precedence, lowest first: named preset, file, `--set KEY=VALUE`, command-line option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api.specs import PresetSpec
from fommctl.errors import UsageError
from fommctl.presets.config import (
    Keys,
    Layer,
    did_you_mean,
    dump_yaml,
    load_yaml,
    merge,
    nearest,
    parse_sets,
    parse_yaml,
    problems_error,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fommctl.api.schema import PairParams
    from fommctl.api.specs import BackendSpec
    from fommctl.host import Host
    from fommctl.presets.sections import Framing, PresetFile

PUBLISHED_FRAME_SHAPE = (256, 256, 3)
"""(H, W, C) where a configuration says nothing."""
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A validated configuration."""

    name: str
    backend: str
    dataset: str | None
    """Name of the adapter for the training data; it need not be installed."""
    frame_shape: tuple[int, int, int]
    """(H, W, C) of a model's native frames."""
    framing: Framing | None
    """None for models that take whole frames."""
    model_params: BaseModel
    """In the backend's schema."""
    sections: Mapping[str, Any]
    """The other sections that were given, by name, as models of `fommctl.presets.sections`; always `dataset_params`."""
    path: Path | None = field(default=None, compare=False)
    summary: str | None = field(default=None, compare=False)

    def section(self, name: str) -> Any:
        """One of the other sections. Raises UsageError where the configuration has none of this name."""
        if name in self.sections:
            return self.sections[name]
        raise UsageError(
            f"the preset '{self.name}' has no section '{name}'",
            f"Add it to {self.path or 'the configuration'}, or start from a complete preset with 'extends: vox-256'.",
        )

    def pairs(self) -> PairParams:
        """How pairs of clips are animated: what the backend has for it, else `animate_params`, else its defaults."""
        from fommctl.api.schema import PairParams
        from fommctl.presets.sections import AnimateParams

        given = [section for section in self.sections.values() if isinstance(section, PairParams)]
        return given[-1] if given else AnimateParams()

    def text(self) -> str:
        """The whole configuration as YAML text, which reads back as an equal preset."""
        data: dict[str, Any] = {"name": self.name, "summary": self.summary, "backend": self.backend}
        data["dataset"] = self.dataset
        data["framing"] = self.framing and self.framing.model_dump()
        data = {key: value for key, value in data.items() if value is not None}
        rest = dict(self.sections)
        sections = {"dataset_params": rest.pop("dataset_params"), "model_params": self.model_params, **rest}
        return dump_yaml(
            {**data, **{name: section.model_dump(exclude_none=True) for name, section in sections.items()}}
        )


def presets_root() -> Path:
    """The folder of the shipped presets: inside the package in a wheel, beside it in a source tree."""
    package = Path(__file__).parents[1]
    packed = package / "_presets"
    return packed if packed.is_dir() else package.parent / "presets"


def preset_specs(host: Host) -> dict[str, PresetSpec]:
    """Every named preset, shipped or of a plugin, by name.

    `vox` is an alias of `vox-256`. Raises UsageError where a plugin's preset has the name of a shipped one.
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
                f"a plugin's preset takes the name of the shipped preset '{min(clash)}'",
                f"Its file is {other.path}; remove the plugin or restrict FOMMCTL_PLUGINS.",
            )
    return {**specs, **host.presets}


def preset_names(host: Host) -> tuple[str, ...]:
    """Names of all presets, without aliases, in alphabetical order."""
    return tuple(sorted(preset_specs(host)))


def find_preset(name: str, host: Host) -> PresetSpec:
    """The preset of this name or alias. Raises UsageError for an unknown one, with the nearest name."""
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


def load_preset(
    name_or_path: str, host: Host, *, sets: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Preset:
    """A preset by name, alias or path, with overrides.

    A file given by path may leave out sections, and with `extends: NAME` changes a named preset.
    sets: `KEY=VALUE` texts.  options: values of command-line options by dotted key; None counts as not given.
    Raises UsageError with every problem that was found, each with its file and line.
    """
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix.lower() in _SUFFIXES or len(path.parts) > 1:
        layer = load_yaml(path)
        return resolve(layer, host, name=path.stem, path=path, sets=sets, options=options)
    spec = find_preset(name_or_path, host)
    return resolve(load_yaml(spec.path), host, name=spec.name, path=spec.path, sets=sets, options=options)


def preset_from_text(text: str, host: Host, *, source: str, sets: Sequence[str] = ()) -> Preset:
    """A preset from YAML text, such as a checkpoint's metadata; `source` names it in messages."""
    return resolve(parse_yaml(text, source), host, name=source, sets=sets)


def preset_from_data(data: Mapping[str, Any], host: Host, *, source: str, sets: Sequence[str] = ()) -> Preset:
    """A preset from plain data, such as an architecture read off a checkpoint; `source` names it in messages."""
    return resolve(Layer(dict(data), {(): source}), host, name=source, sets=sets)


def with_usual_defaults(preset: Preset, host: Host) -> Preset:
    """A preset that was stored without defaults of `animate`, with those of the named preset that it came from."""
    found = preset_specs(host).get(preset.name)
    if found is None or preset.pairs().defaults is not None:
        return preset
    try:
        usual = load_preset(found.name, host).pairs().defaults
    except UsageError:
        # What is wrong with a preset is told where it is asked for.
        return preset
    if usual is None:
        return preset
    pairs = preset.pairs()
    name = next((name for name, section in preset.sections.items() if section is pairs), "animate_params")
    return replace(preset, sections={**preset.sections, name: pairs.model_copy(update={"defaults": usual})})


def resolve(
    layer: Layer,
    host: Host,
    *,
    name: str,
    path: Path | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Preset:
    """Lay the overrides over `layer`, check all and build the preset: the one place that knows the precedence."""
    layers = [layer, parse_sets(sets), _options_layer(options or {})]
    base = layer.data.get("extends")
    if base is not None:
        layers[0] = replace(layer, data={key: value for key, value in layer.data.items() if key != "extends"})
        below = load_yaml(find_preset(str(base), host).path)
        layers.insert(0, replace(below, data={**below.data, "name": name}))
    merged = merge(*map(_with_current_names, layers))
    header, spec, model_params = _check(merged, host)
    from fommctl.presets.sections import HEADER, DatasetParams

    sections_given = [key for key in type(header).model_fields if key not in HEADER]
    given = {key: getattr(header, key) for key in sections_given if getattr(header, key) is not None}
    sections = {"dataset_params": DatasetParams(frame_shape=PUBLISHED_FRAME_SHAPE), **given}
    return Preset(
        name=header.name or name,
        backend=spec.name,
        dataset=header.dataset,
        frame_shape=sections["dataset_params"].frame_shape,
        framing=header.framing,
        model_params=model_params,
        sections=sections,
        path=path,
        summary=header.summary,
    )


def _check(merged: Layer, host: Host) -> tuple[PresetFile, BackendSpec, BaseModel]:
    from fommctl.presets.sections import preset_file
    from fommctl.presets.validation import check, dotted_keys, unknown_key

    problems: list[str] = []
    spec = _backend(merged, host, problems)
    schema = spec.schema() if spec else None
    file = preset_file(spec.sections() if spec else {})
    known = [*file.model_fields, "model_params", "extends"]
    everywhere = [*dotted_keys(file), *(dotted_keys(schema, "model_params.") if schema else ())]
    strangers = [key for key in merged.data if key not in known]
    problems += [unknown_key((key,), merged, known, everywhere) for key in strangers]
    rest = {key: value for key, value in merged.data.items() if key not in strangers and key != "model_params"}
    header, found = check(file, replace(merged, data=rest))
    problems += found
    model_params = None
    if merged.data.get("model_params") is None:
        problems.append(f"{merged.origin(())}: the section 'model_params' is missing")
    elif schema is not None:
        model_params, found = check(schema, merged, ("model_params",))
        problems += found
    if problems or header is None or spec is None or model_params is None:
        raise problems_error(problems, "'fommctl presets show NAME' prints a complete configuration to compare with.")
    return header, spec, model_params


def _backend(merged: Layer, host: Host, problems: list[str]) -> BackendSpec | None:
    """The backend that the configuration names, or else the one that recognises its keys."""
    name = merged.data.get("backend")
    if isinstance(name, str):
        if name in host.backends:
            return host.backends[name]
        problems.append(
            f"{merged.origin(('backend',))}: unknown backend '{name}'{did_you_mean(name, host.backends)}"
            f"; installed: {', '.join(host.backends) or 'none'}"
        )
    params = merged.data.get("model_params")
    if not isinstance(params, dict):
        if params is not None:
            problems.append(f"{merged.origin(('model_params',))}: 'model_params' should be a mapping")
        return None
    found = [spec for spec in host.backends.values() if spec.recognises(params)]
    if len(found) == 1:
        return found[0]
    if name is not None:
        return None
    who = f"{', '.join(spec.name for spec in found)} all recognise" if found else "no installed backend recognises"
    problems.append(f"{merged.origin(('model_params',))}: {who} these model_params; say which with 'backend: NAME'")
    return None


def _options_layer(options: Mapping[str, Any]) -> Layer:
    layers = []
    for dotted, value in options.items():
        if value is not None:
            keys: Keys = tuple(dotted.split("."))
            for key in reversed(keys):
                value = {key: value}
            layers.append(Layer(value, {keys: f"the option for {dotted}"}))
    return merge(*layers)


def _with_current_names(layer: Layer) -> Layer:
    """Older published files write `image_shape` for `frame_shape`."""
    params = layer.data.get("dataset_params")
    if not isinstance(params, dict) or "image_shape" not in params or "frame_shape" in params:
        return layer
    renamed = {("frame_shape" if key == "image_shape" else key): value for key, value in params.items()}
    old, new = ("dataset_params", "image_shape"), ("dataset_params", "frame_shape")
    origins = {(new + key[2:] if key[:2] == old else key): text for key, text in layer.origins.items()}
    return Layer({**layer.data, "dataset_params": renamed}, origins)


def summary_of(spec: PresetSpec) -> str:
    """What a preset says of itself: by its plugin, else in its file; what is wrong where the file cannot be read."""
    if spec.summary:
        return spec.summary
    try:
        return str(load_yaml(spec.path).data.get("summary") or "")
    except UsageError as error:
        return f"unusable: {error.message}"
