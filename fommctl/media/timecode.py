"""SMPTE timecodes: conversion to frames, and shifting by frames."""

from __future__ import annotations

import re
from fractions import Fraction

_TIMECODE = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})([:;.])([0-9]{2})")


def _fields(text: str) -> re.Match[str] | None:
    """Match the fields; editing programs write drop-frame with semicolons everywhere, 01;00;00;02."""
    return _TIMECODE.fullmatch(text.replace(";", ":", 2) if text.count(";") == 3 else text)


def is_timecode(text: str) -> bool:
    """Return whether a text has the four fields of a timecode, whatever their values; `1:02:03.50` is a clock time."""
    match = _fields(text)
    return match is not None and match[4] != "."


def frame_number(timecode: str, rate: Fraction) -> int:
    """Return the number of frames from 00:00:00:00 to this timecode at `rate` frames per second.

    Raises ValueError, with the reason, for a text that is not a timecode and for one that does not exist at this rate.
    """
    match = _fields(timecode)
    if match is None:
        raise ValueError("it is not a timecode")
    minutes, seconds, frame = (int(match[group]) for group in (2, 3, 5))
    base = round(rate)
    if minutes > 59 or seconds > 59:
        raise ValueError("minutes and seconds end at 59")
    if frame >= base:
        raise ValueError(f"at {float(rate):g} frames/s they are numbered from 00 to {base - 1:02}")
    if match[4] in ";." and (rate * 1001 / 30000).denominator != 1:
        raise ValueError(f"drop-frame (;) counts 29.97 and 59.94 frames/s, not {float(rate):g}")
    if seconds == 0 and minutes % 10 and frame < _dropped(match, rate):
        raise ValueError("drop-frame has no such number")
    return _frames(match, rate)


def _frames(match: re.Match[str], rate: Fraction) -> int:
    hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
    minutes += hours * 60
    return (minutes * 60 + seconds) * round(rate) + frame - _dropped(match, rate) * (minutes - minutes // 10)


def _dropped(match: re.Match[str], rate: Fraction) -> int:
    """Return how many frame numbers drop-frame skips at the start of every minute that is not a multiple of ten."""
    return round(rate) // 15 if match[4] in ";." else 0


def shifted(timecode: str, frames: int, rate: Fraction, new_rate: Fraction | None = None) -> str | None:
    """Return the timecode this many frames later, modulo 24 hours; None for a text that is not a timecode.

    rate: frames per second.  new_rate: rate in which the result counts, if different.
    `HH:MM:SS;FF` counts drop-frame (SMPTE 12M): at 29.97 frames per second the numbers 00 and 01 (at 59.94 the first
    four) are skipped at the start of every minute that is not a multiple of ten.
    """
    match = _fields(timecode)
    if match is None:
        return None
    base, dropped = round(rate), _dropped(match, rate)
    ten_minutes = 600 * base - 9 * dropped
    count = (_frames(match, rate) + frames) % (144 * ten_minutes)
    tens, rest = divmod(count, ten_minutes)
    # The first minute of ten keeps its numbers; each later one is `dropped` shorter.
    later = max(0, rest - 60 * base) // (60 * base - dropped) + (rest >= 60 * base) if dropped else 0
    number = count + dropped * (9 * tens + later)
    total, frame = divmod(number, base)
    frame = frame * round(new_rate or rate) // base
    return f"{total // 3600:02}:{total // 60 % 60:02}:{total % 60:02}{match[4]}{frame:02}"
