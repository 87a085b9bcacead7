"""Is a spec what it claims to be? Used by the host at load and by `fommctl.api.testing`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fommctl.api.specs import (
    BackendSpec,
    CommandSpec,
    DatasetSpec,
    DetectorSpec,
    EmbedderSpec,
    MetricSpec,
    ModelSpec,
    PresetSpec,
)

SPEC_TYPES: Mapping[str, type] = {
    "backend": BackendSpec,
    "dataset": DatasetSpec,
    "detector": DetectorSpec,
    "embedder": EmbedderSpec,
    "metric": MetricSpec,
    "preset": PresetSpec,
    "model": ModelSpec,
    "command": CommandSpec,
}
"""What plugins can offer, by kind; the hook of a kind is `fommctl_<kind>s`."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLAIN: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "Path": Path}


def spec_fault(kind: str, spec: object) -> str | None:
    """What is wrong with this spec, as one short phrase that names it, or None."""
    expected = SPEC_TYPES[kind]
    if not isinstance(spec, expected):
        return f"{type_name(spec)} is not a {expected.__name__}"
    name = getattr(spec, "name", None)
    for word in (name, *getattr(spec, "aliases", ())):
        if not isinstance(word, str) or not NAME.fullmatch(word):
            return f"the {kind} name {word!r} is not of lower-case letters, digits, '.', '_' and '-'"
    for declared in fields(expected):
        wanted = _wanted(str(declared.type), getattr(spec, declared.name))
        if wanted:
            return f"{declared.name} of the {kind} {name!r} is not {wanted}"
    return None


def _wanted(annotation: str, value: Any) -> str | None:
    """What a field of this annotation must be, where `value` is not that; None where it is."""
    if value is None and annotation.endswith("| None"):
        return None
    if annotation.startswith("Callable"):
        return None if callable(value) else "callable"
    if annotation == "tuple[str, ...]":
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        return None if fits else "a tuple of strings"
    plain = _PLAIN.get(annotation)
    return f"a {plain.__name__}" if plain and not isinstance(value, plain) else None


def type_name(value: object) -> str:
    """The type of a value, or the class itself where the value is one, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
