"""Parsing times and frame rates: seconds, clock times, timecodes, rates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from fommctl.errors import UsageError
from fommctl.media.timecode import frame_number, is_timecode

if TYPE_CHECKING:
    from fommctl.media.probe import VideoInfo

LONGEST_S = 10**9
"""Largest time in seconds; anything beyond is a mistake."""
SLOWEST = Fraction(1, 3600)
"""Lowest frame rate in frames per second: one per hour."""


@dataclass(frozen=True, slots=True)
class Timecode:
    """A time in frames, `HH:MM:SS:FF`, or `HH:MM:SS;FF` for drop-frame."""

    text: str

    def __str__(self) -> str:
        return self.text

    def seconds(self, info: VideoInfo, own: bool) -> Fraction:
        """Convert to seconds since the start of a clip.  own: subtract the timecode at which the clip begins.

        Raises UsageError for a timecode that does not exist at the clip's rate, and for a time before its start.
        """
        rate, name = info.coded_rate, info.path.name
        try:
            frames = frame_number(self.text, rate)
        except ValueError as error:
            raise UsageError(f"a time of '{self.text}': {error}", f"{name} has {float(rate):g} frames/s.") from error
        if own:
            if info.timecode is None:
                raise UsageError(f"--timecode, but {name} has no timecode", "Leave --timecode out: times count from 0.")
            try:
                frames -= frame_number(info.timecode, rate)
            except ValueError as error:
                raise UsageError(
                    f"the timecode of {name}, {info.timecode}, does not fit its rate: {error}", "Leave --timecode out."
                ) from error
            if frames < 0:
                raise UsageError(f"{self.text} is before the start of {name}", f"It starts at {info.timecode}.")
        # Matroska rounds times to milliseconds, by which no frame must be lost.
        slack = Fraction(1, 2000) if info.container == "matroska" else Fraction(0)
        return max(Fraction(0), frames / rate - slack)


def parse_time(text: str) -> Fraction:
    """Parse seconds (`12.5`) or clock time (`1:02:03.5`, `02:03`), in seconds. Raises UsageError."""
    try:
        *whole, last = text.split(":")
        seconds = _fraction(last)
        if whole:
            # Only the first of several fields may be 60 or more.
            limits = [None] + [60] * (len(whole) - 1)
            counts = [_count(part, limit) for part, limit in zip(whole, limits, strict=True)]
            if len(whole) > 2 or not 0 <= seconds < 60 or "/" in last:
                raise ValueError("not a clock time")
            seconds += 60 * sum(count * 60**power for power, count in enumerate(reversed(counts)))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"a time of '{text}' cannot be read", "Give seconds such as 12.5, or minutes and seconds as 1:02.5."
        ) from error
    return seconds


def parse_moment(text: str) -> Fraction | Timecode:
    """Parse a time as in `parse_time`, or a timecode (`HH:MM:SS:FF`). Raises UsageError."""
    if is_timecode(text):
        return Timecode(text)
    try:
        return parse_time(text)
    except UsageError as error:
        hint = "Give seconds such as 12.5, minutes and seconds as 1:02.5, or a timecode as HH:MM:SS:FF."
        raise UsageError(error.message, hint) from error


def parse_rate(text: str) -> Fraction:
    """Parse a frame rate such as 25, 29.97 or 30000/1001; NTSC decimals become exact fractions. Raises UsageError."""
    exact = {"23.976": "24000/1001", "23.98": "24000/1001", "29.97": "30000/1001", "59.94": "60000/1001"}
    try:
        rate = _fraction(exact.get(text, text))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not SLOWEST <= rate <= 1000:
        raise UsageError(f"a frame rate of '{text}' cannot be used", "Give a number such as 25, 29.97 or 30000/1001.")
    return rate


def _count(text: str, limit: int | None) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10) or (limit is not None and int(text) >= limit):
        raise ValueError("not a count of minutes or hours")
    return int(text)


def _fraction(text: str) -> Fraction:
    """Parse a number or a fraction. Raises ValueError, also for numbers so large (1e999999999) that parsing them would
    take forever."""
    if len(text) > 40 or re.search(r"[eE][-+]?[\d_]{3}", text):
        raise ValueError("not a sensible number")
    number = Fraction(text)
    if abs(number) > LONGEST_S:
        raise ValueError("not a sensible number")
    return number
