"""Configuration as plain data: reads YAML safely with line numbers, and merges layers by precedence.

PyYAML is imported when first needed, so that --help does not load it.
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.errors import UsageError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1_000_000
"""Largest configuration file; real ones have a few kilobytes."""
MAX_VALUES = 50_000
"""Most values in a file after its aliases are expanded."""

Keys = tuple[str | int, ...]
"""Path of a value, such as ("train_params", "scales", 1)."""

# YAML 1.2 floats that PyYAML, which implements YAML 1.1, reads as text: 1e-4, 2E3.
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LONGEST_NUMBER = 400
"""Most characters of a number: base-60 numbers of YAML 1.1 take quadratic time to parse."""
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp")}


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to `name`, ignoring case; None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the most similar candidate; empty if none is similar."""
    match = nearest(name, candidates)
    return f" (did you mean '{match}'?)" if match else ""


@dataclass(frozen=True, slots=True)
class Layer:
    """Plain data from one place, a file or an option, with the origin of each value."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=dict)
    """Origins by path: `file.yaml:12` or `--set a.b=c`; a path that is not listed has the origin of its parent."""

    def holds(self, path: Keys) -> bool:
        """Return whether there is a value at `path`."""
        value: Any = self.data
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
        return True


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """Return the merged data of the layers, where later layers win.

    Mappings are merged key by key, everything else is replaced.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        _overlay(result, layer.data)
    return result


def _overlay(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _overlay(below[key], value)
        else:
            below[key] = copy.deepcopy(value)


def origin(layers: Sequence[Layer], path: Keys) -> str:
    """Return the origin of the value at `path` of merged layers; empty if it is unknown."""
    for layer in reversed(layers):
        known = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in layer.origins), None)
        if known is not None and layer.holds(path):
            return layer.origins[known]
    return ""


def single_value(dotted: str, value: Any, where: str) -> Layer:
    """Return a layer with one value at the path `dotted`, such as `train_params.batch_size`.  where: its origin."""
    keys = tuple(dotted.split("."))
    for key in reversed(keys):
        value = {key: value}
    return Layer(value, {keys: where})


def parse_sets(sets: Sequence[str]) -> list[Layer]:
    """Return a layer for each `--set` text `a.b=value`, whose value is YAML.

    Raises UsageError if one has no key or its value is not valid.
    """
    layers = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise UsageError(f"--set {text}: expected KEY=VALUE", "For example: --set train_params.batch_size=8")
        parsed, _ = _parse(value, f"--set {text}", lines=False)
        layers.append(single_value(key.strip(), parsed, f"--set {text}"))
    return layers


def load_yaml(path: Path) -> Layer:
    """Return the mapping in a YAML file.

    Raises UsageError if the file cannot be read, is not a YAML mapping of plain data, or exceeds MAX_BYTES or
    MAX_VALUES.
    """
    hint = "Give the path of a preset's YAML file, or a name from 'fommctl presets list'."
    if not path.is_file():
        problem = (
            "is a directory, not a file" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
        )
        raise UsageError(f"{path} {problem}", hint)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint) from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes: not a configuration file", hint)
    return parse_yaml(content, str(path))


def parse_yaml(content: str | bytes, name: str) -> Layer:
    """Return the mapping in YAML text.  name: shown before the line number in messages.

    Raises UsageError if the text is not a YAML mapping of plain data, or exceeds MAX_VALUES.
    """
    data, origins = _parse(content, name, lines=True)
    if data is None:
        raise UsageError(f"{name} is empty", "See 'fommctl presets show smoke' for a complete example.")
    if not isinstance(data, dict):
        raise UsageError(
            f"{name}: expected sections such as 'model_params:', found {describe(data)}",
            "See 'fommctl presets show smoke' for a complete example.",
        )
    return Layer(data, {**origins, (): name})


def read_yaml(content: str | bytes, name: str) -> tuple[Any, dict[Keys, str]]:
    """Return the plain data of any type in YAML text, and the origins of its parts by path, such as `name:12`.

    Raises UsageError if the text is not valid YAML, has tags, or exceeds MAX_VALUES after its aliases are expanded.
    """
    return _parse(content, name, lines=True)


def describe(value: Any) -> str:
    """Return how messages describe a value of a configuration: `the text 'ten'`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"the text '{value[:60]}'"
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]


def problems_error(problems: Sequence[str], hint: str) -> UsageError:
    """Return one error for all problems of a configuration, one per line."""
    if len(problems) == 1:
        return UsageError(problems[0], hint)
    return UsageError("\n  ".join([f"{len(problems)} problems in the configuration:", *problems]), hint)


def _parse(content: str | bytes, name: str, *, lines: bool) -> tuple[Any, dict[Keys, str]]:
    import yaml

    reader = _Reader(name, lines)
    try:
        node = _loader(reader)(content).get_single_node()
        data = None if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark and lines else name
        raise UsageError(f"{where}: not valid YAML: {error.problem or error.context}", _CHECK_HINT) from error
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply for a configuration", _CHECK_HINT) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"{name}: not valid YAML: {reason}", _CHECK_HINT) from error
    if reader.problems:
        raise problems_error(reader.problems, _CHECK_HINT)
    return data, reader.origins


_CHECK_HINT = "Use plain YAML data only: text, numbers, lists and mappings, without tags."


class _Reader:
    """Converts YAML nodes to plain data only; records origins and collects problems."""

    def __init__(self, name: str, lines: bool) -> None:
        from yaml.constructor import SafeConstructor

        self.name, self.lines = name, lines
        self.origins: dict[Keys, str] = {}
        self.problems: list[str] = []
        self.values = 0
        self.scalars = SafeConstructor()

    def where(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if self.lines and node.start_mark else self.name

    def count(self, most: int = MAX_VALUES) -> None:
        """Count one more value. Raises UsageError if there are more than `most`."""
        self.values += 1
        if self.values > most:
            raise UsageError(f"{self.name}: more than {MAX_VALUES:,} values, or an alias inside itself", _CHECK_HINT)

    def read(self, node: yaml.Node, path: Keys) -> Any:
        import yaml

        self.count()
        self.origins.setdefault(path, self.where(node))
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS:
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return dict(self.pairs(node, path))
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        self.problems.append(f"{self.where(node)}: the tag {tag} is not allowed")
        return None

    def scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag.endswith(":timestamp") or (node.tag.endswith(":str") and node.style is not None):
            return node.value
        if node.tag.endswith(":str"):
            return float(node.value) if _FLOAT.fullmatch(node.value) else node.value
        try:
            if len(node.value) > _LONGEST_NUMBER:
                raise ValueError
            return self.scalars.construct_object(node)
        except (ValueError, KeyError, OverflowError):
            self.problems.append(
                f"{self.where(node)}: '{node.value[:40]}' cannot be read as {node.tag.rpartition(':')[2]}"
            )
            return None

    def pairs(self, node: yaml.MappingNode, path: Keys) -> Iterator[tuple[str, Any]]:
        seen = set()
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or not key_node.tag.endswith(":str"):
                shown = f"'{key}'" if isinstance(key, str) else "a collection"
                self.problems.append(f"{self.where(key_node)}: keys must be plain text, not {shown}")
            elif key in seen:
                self.problems.append(f"{self.where(key_node)}: duplicate key '{key}'")
            else:
                seen.add(key)
                self.origins.setdefault((*path, key), self.where(key_node))
                yield key, self.read(value_node, (*path, key))


def _loader(reader: _Reader) -> type[yaml.SafeLoader]:
    """Return a loader that stops after 2 * MAX_VALUES nodes (values and keys), as PyYAML reads only ten thousand per
    second."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            nodes.count(2 * MAX_VALUES)
            return super().compose_node(parent, index)

    nodes = _Reader(reader.name, reader.lines)
    return Loader


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Return YAML text that `parse_yaml` reads back as equal data: mappings in blocks in their order, lists in one
    line."""
    import yaml

    return yaml.dump(dict(data), Dumper=_dumper(), sort_keys=False, width=120, allow_unicode=True)


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_list(dumper: yaml.SafeDumper, items: Sequence[Any]) -> yaml.Node:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)

    Dumper.add_representer(list, represent_list)
    Dumper.add_representer(tuple, represent_list)
    # Text that looks like a number to `_Reader` is quoted.
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{_FLOAT.pattern}$"), list("-+0123456789."))
    return Dumper


def check_seed(seed: int) -> None:
    """Raise UsageError unless the seed is an integer in [0, 2**63), which every library accepts."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"invalid seed {seed!r}", "Give a whole number from 0 to 2**63 - 1.")
