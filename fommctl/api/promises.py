"""What a contract suite raises where a plugin does not keep its contract."""

from __future__ import annotations

_LONGEST = 200


class BrokenPromiseError(AssertionError):
    """A promise that a plugin makes by offering something, and what came instead."""

    def __init__(self, promise: str, got: str | None = None) -> None:
        super().__init__(promise if got is None else f"{promise} (got {got})")
        self.promise = promise
        self.got = got


def promise(kept: object, what: str, *got: object) -> None:
    """`assert` that stays with `python -O`. got: what came, shown where it is not as promised; arrays by their type."""
    if not kept:
        raise BrokenPromiseError(what, ", ".join(map(_shown, got)) or None)


def _shown(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
