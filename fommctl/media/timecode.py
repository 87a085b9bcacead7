"""SMPTE timecodes: moved by a number of frames."""

from __future__ import annotations

import re
from fractions import Fraction

_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)")


def shifted(timecode: str, frames: int, rate: Fraction, new_rate: Fraction | None = None) -> str | None:
    """The timecode so many frames later, within its 24 hours; None for a text that is no timecode.

    rate: frames per second.  new_rate: in which the result counts, where that is another.
    `HH:MM:SS;FF` counts drop-frame (SMPTE 12M): at 29.97 frames a second the numbers 00 and 01 (at 59.94 the first
    four) are left out at the start of every minute that is not a tenth one.
    """
    match = _TIMECODE.fullmatch(timecode)
    if match is None:
        return None
    hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
    base = round(rate)
    dropped = base // 15 if match[4] in ";." else 0
    whole_minutes = hours * 60 + minutes
    count = (whole_minutes * 60 + seconds) * base + frame - dropped * (whole_minutes - whole_minutes // 10)
    ten_minutes = 600 * base - 9 * dropped
    count = (count + frames) % (144 * ten_minutes)
    tens, rest = divmod(count, ten_minutes)
    # The first minute of ten keeps its numbers; each later one is `dropped` shorter.
    later = max(0, rest - 60 * base) // (60 * base - dropped) + (rest >= 60 * base) if dropped else 0
    number = count + dropped * (9 * tens + later)
    total, frame = divmod(number, base)
    frame = frame * round(new_rate or rate) // base
    return f"{total // 3600:02}:{total // 60 % 60:02}:{total % 60:02}{match[4]}{frame:02}"
