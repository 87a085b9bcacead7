"""JSON that comes from elsewhere: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
import math
from typing import Any


def parse(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    finite: as the standard has it, without NaN, Infinity and numbers beyond those of floats; some programs write them.
    Raises ValueError, also for text that is nested too deeply and for numbers of too many digits.
    """
    try:
        if not finite:
            return json.loads(text)
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number
