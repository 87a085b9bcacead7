"""Checks layers of configuration against pydantic models and tells what is wrong in a user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from fommctl.presets.config import Keys, Layer, describe, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
}


def check(schema: type[Model], layer: Layer, at: Keys = ()) -> tuple[Model | None, list[str]]:
    """The part of `layer` at the path `at` as a `schema`, or None and every problem, each with where it was written."""
    data: Any = layer.data
    for key in at:
        data = data[key]
    try:
        return schema.model_validate(data), []
    except ValidationError as error:
        return None, [_problem(schema, details, layer, at) for details in error.errors(include_url=False)]


def dotted_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that a schema knows, as `--set` writes it: `kp_detector_params.num_blocks`."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        inner = _model_in(info.annotation)
        if inner is not None:
            yield from dotted_keys(inner, f"{prefix}{name}.")


def unknown_key(key: Keys, layer: Layer, siblings: list[str], everywhere: list[str]) -> str:
    """The message for a key that nobody knows.

    siblings: the keys that may stand there.  everywhere: all dotted keys of the configuration, searched for the
    same name at another place when no sibling is near.
    """
    name, dotted = str(key[-1]), ".".join(map(str, key))
    suggestion = did_you_mean(name, siblings)
    if not suggestion:
        elsewhere = [known for known in everywhere if known.rpartition(".")[2] == name]
        suggestion = f" (did you mean '{elsewhere[0]}'?)" if elsewhere else ""
    return f"{_where(layer, key)}unknown key '{dotted}'{suggestion}"


def _problem(schema: type[BaseModel], details: ErrorDetails, layer: Layer, at: Keys) -> str:
    key = (*at, *details["loc"])
    dotted = ".".join(map(str, key))
    kind = details["type"]
    if kind == "extra_forbidden":
        parent = _model_at(schema, details["loc"][:-1])
        prefix = ".".join(map(str, at)) + "." if at else ""
        return unknown_key(key, layer, list(parent.model_fields), list(dotted_keys(schema, prefix)))
    if kind == "missing":
        missing = "a value" if isinstance(key[-1], int) else f"the key '{key[-1]}'"
        return f"{_where(layer, key[:-1])}{missing} is missing in '{'.'.join(map(str, key[:-1])) or 'the file'}'"
    expected = _EXPECTED.get(kind)
    if expected is None:
        # pydantic says "Tuple should have at most 3 items after validation": the key is named before it here.
        reason = re.sub(r"^(Value error, )?(Input|Tuple|List|String) ", "", details["msg"])
        reason = reason.replace(" after validation", "")
    else:
        reason = f"should be {expected}"
    collection = isinstance(details["input"], (dict, list))
    found = "" if collection and expected is None else f", not {describe(details['input'])}"
    return f"{_where(layer, key)}'{dotted}' {reason}{found}"


def _where(layer: Layer, key: Keys) -> str:
    origin = layer.origin(key)
    return f"{origin}: " if origin else ""


def _model_at(schema: type[BaseModel], location: Keys) -> type[BaseModel]:
    for part in location:
        field = schema.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field else None
        schema = inner or schema
    return schema


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
