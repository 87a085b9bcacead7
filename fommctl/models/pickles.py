"""Checks of torch pickles before they are executed.

torch's own reader (weights_only) calls only functions on its list, but does not bound memory and time: it allows
`bytearray(10**10)` and storages of any size, and a key made of nested tuples that share their parts takes exponential
time to hash, in C, where signals are not handled. The operations are therefore followed here with names in place of
objects.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

LONGEST_PICKLE = 4 * 2**20
"""Bytes of a torch file besides the numbers; the published models have a twentieth of that."""
MOST_OPERATIONS = 2_000_000
MOST_PARTS = 100_000
"""The most parts of a tuple, those of its parts included each time they occur: the cost of hashing it."""
_CALLABLE = frozenset({"collections.OrderedDict", "torch.Size", "torch.device", "torch.serialization._get_layout",
                       "_codecs.encode", "collections.Counter", "torch.nn.parameter.Parameter"})  # fmt: skip
_REBUILDS = "torch._utils._rebuild_"
_CONTAINERS = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT")
_FILLS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
_FILLS_TO_MARK = ("APPENDS", "SETITEMS", "ADDITEMS")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLS = ("REDUCE", "NEWOBJ")


class Refused(Exception):
    """A pickle that is not read; the text is the reason, as the end of a sentence that begins with the file."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A stand-in for an object on the stack."""

    name: str | None = None
    """Name of the class or function that was named, or a text."""
    number: int = 0
    parts: tuple[_Item, ...] = ()
    """Parts of a tuple."""
    weight: int = 1


_MARK = _Item()
_OTHER = _Item()


def check_pickle(file: BinaryIO, size: int) -> None:
    """Follow the pickle that begins where `file` stands, to its end.

    size: bytes of the whole file, which no storage can exceed. Raises Refused, and ValueError if it is not a pickle.
    """
    stack: list[_Item] = []
    memo: dict[int, _Item] = {}
    for number, (name, argument) in enumerate(_operations(file)):
        if number > MOST_OPERATIONS:
            raise Refused("contains more names than a model does")
        if name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[len(stack) - count :] = [_tuple(tuple(stack[len(stack) - count :]))]
        elif name == "TUPLE":
            stack.append(_tuple(tuple(_pop_mark(stack))))
        elif name in ("LIST", "DICT"):
            _pop_mark(stack)
            stack.append(_OTHER)
        elif name in _FILLS:
            del stack[-_FILLS[name] :]
        elif name in _FILLS_TO_MARK:
            _pop_mark(stack)
        elif name in _CALLS:
            arguments = stack.pop()
            stack[-1] = _called(stack[-1], arguments)
        elif name == "BINPERSID":
            stack[-1] = _storage(stack[-1], size)
        elif name == "GLOBAL":
            stack.append(_Item(_shown(*str(argument).split(" ", 1))))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(_Item(_shown(str(module.name), str(function.name))))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument)] = stack[-1]  # type: ignore[call-overload]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])  # type: ignore[call-overload]
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            _pop_mark(stack)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("INST", "OBJ", "NEWOBJ_EX", "PERSID", "EXT1", "EXT2", "EXT4"):
            raise Refused("is refused: its pickle makes objects in a way that no model needs")
        elif isinstance(argument, bool) or name in ("PROTO", "FRAME", "STOP"):
            if name not in ("PROTO", "FRAME", "STOP"):
                stack.append(_OTHER)
        elif isinstance(argument, int):
            stack.append(_Item(number=argument))
        elif isinstance(argument, str):
            stack.append(_Item(argument))
        else:
            stack.append(_OTHER)


def _shown(module: str, name: str = "") -> str:
    return name if module in ("builtins", "__builtin__") else f"{module}.{name}"


def _operations(file: BinaryIO) -> Iterator[tuple[str, object]]:
    """Yield the operations; torch reads them from the same bytes."""
    whole = io.BytesIO(file.read(LONGEST_PICKLE))
    begun = file.tell() - len(whole.getbuffer())
    try:
        for operation, argument, _ in pickletools.genops(whole):
            yield operation.name, argument
    except ValueError as error:
        if whole.tell() >= LONGEST_PICKLE - 1:
            raise Refused("contains more names than a model does") from error
        raise
    file.seek(begun + whole.tell())


def _pop_mark(stack: list[_Item]) -> list[_Item]:
    for place in range(len(stack) - 1, -1, -1):
        if stack[place] is _MARK:
            items = stack[place + 1 :]
            del stack[place:]
            return items
    raise ValueError("no mark on the stack")


def _tuple(parts: tuple[_Item, ...]) -> _Item:
    weight = 1 + sum(part.weight for part in parts)
    if weight > MOST_PARTS:
        raise Refused("is refused: its pickle has a tuple of more parts than a model")
    return _Item(parts=parts, weight=weight)


def _called(function: _Item, arguments: _Item) -> _Item:
    name = function.name or "an object"
    if name not in _CALLABLE and not name.startswith(_REBUILDS):
        raise Refused(f"is refused: it tries to call {name}, but a model needs no code")
    del arguments
    return _OTHER


def _storage(key: _Item, size: int) -> _Item:
    """Check that the file is at least as large as the declared storage.

    key: ("storage", class, name, device, count of numbers, ...).
    """
    if any(part.number > size for part in key.parts):
        raise Refused("is truncated or damaged: it claims more numbers than the file holds")
    return _OTHER
