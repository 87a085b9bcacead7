"""Timecodes against the rules of SMPTE 12M."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.media.timecode import shifted

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "expected"),
    [
        ("01:00:00:00", 30, Fraction(25), "01:00:01:05"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:59;59", 1, NTSC * 2, "00:01:00;04"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:00;00", 17982, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107892, NTSC, "01:00:00;00"),
        ("23:59:59;29", 1, NTSC, "00:00:00;00"),
        ("00:01:00;02", 0, NTSC, "00:01:00;02"),
    ],
)
def test_by_hand(timecode, frames, rate, expected):
    assert shifted(timecode, frames, rate) == expected


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "new_rate", "expected"),
    [
        ("01:00:00:00", 13, Fraction(25), Fraction(50), "01:00:00:26"),
        ("01:00:00:24", 0, Fraction(25), Fraction(24), "01:00:00:23"),
        ("00:00:59;29", 1, NTSC, NTSC * 2, "00:01:00;04"),
        ("01:00:00:23", 0, Fraction(24000, 1001), Fraction(24), "01:00:00:23"),
    ],
)
def test_counted_at_another_rate(timecode, frames, rate, new_rate, expected):
    assert shifted(timecode, frames, rate, new_rate) == expected


def test_what_is_no_timecode():
    assert shifted("now", 1, NTSC) is None


@given(st.integers(0, 2_589_408 - 1), st.integers(0, 100_000))
def test_shifts_add_up_and_skip_the_dropped_numbers(start, step):
    one = shifted("00:00:00;00", start, NTSC)
    assert shifted(one, step, NTSC) == shifted("00:00:00;00", start + step, NTSC)
    minutes, seconds, frame = int(one[3:5]), int(one[6:8]), int(one[9:])
    assert not (minutes % 10 and seconds == 0 and frame < 2)
