"""Numbers as the page prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DIGITS = 4
"""Significant ones of a mean; its interval and its differences are printed to the same place."""
_MOST_PLACES = 6


def places_for(value: float | None) -> int:
    """Decimal places that show four significant digits of `value`; at most six."""
    if not value:
        return _DIGITS - 1
    return min(_MOST_PLACES, max(0, _DIGITS - 1 - math.floor(math.log10(abs(value)))))


def printed(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """`value` with so many decimal places (None: as its size suggests) and a true minus; a dash where there is none."""
    if value is None:
        return "–"
    rounded = f"{value:{'+' if signed else ''},.{places_for(value) if places is None else places}f}"
    return rounded.replace("-", "−")


def enumerated(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
