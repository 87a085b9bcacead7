"""Timecodes by the rules of SMPTE 12M."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_factory import write_clip

from fommctl.animate.config import AnimateConfig
from fommctl.errors import UsageError
from fommctl.media.probe import probe
from fommctl.media.timecode import frame_number, shifted
from fommctl.media.times import Timecode, parse_moment, parse_time

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


def test_invalid_timecodes():
    assert shifted("now", 1, NTSC) is None


@given(st.integers(0, 2_589_408 - 1), st.integers(0, 100_000))
def test_shifts_add_up_and_skip_the_dropped_numbers(start, step):
    one = shifted("00:00:00;00", start, NTSC)
    assert shifted(one, step, NTSC) == shifted("00:00:00;00", start + step, NTSC)
    minutes, seconds, frame = int(one[3:5]), int(one[6:8]), int(one[9:])
    assert not (minutes % 10 and seconds == 0 and frame < 2)


@pytest.mark.parametrize(
    ("text", "rate", "frames"),
    [
        ("00:00:00:05", Fraction(25), 5),
        ("00:00:10:00", Fraction(25), 250),
        ("01:00:00:00", Fraction(24), 86400),
        ("0:00:01:00", NTSC, 30),
        ("00:01:00;02", NTSC, 1800),
        ("00:10:00;00", NTSC, 17982),
        ("00;10;00;00", NTSC, 17982),
        ("01:00:00;00", NTSC, 107892),
        ("00:01:00;04", 2 * NTSC, 3600),
    ],
)
def test_frames_are_counted(text, rate, frames):
    assert frame_number(text, rate) == frames


@given(st.integers(0, 2589407), st.sampled_from(["00:00:00:00", "00:00:00;00"]))
def test_counting_undoes_shifting(frames, zero):
    assert frame_number(shifted(zero, frames, NTSC), NTSC) == frames


@pytest.mark.parametrize(
    ("text", "rate", "reason"),
    [
        ("00:00:00:25", Fraction(25), "numbered from 00 to 24"),
        ("00:60:00:00", Fraction(25), "end at 59"),
        ("00:00:60:00", Fraction(25), "end at 59"),
        ("00:00:00;05", Fraction(25), "drop-frame"),
        ("00:01:00;00", NTSC, "no such number"),
        ("00:00:05", Fraction(25), "not a timecode"),
        ("00;00:00;05", NTSC, "not a timecode"),
        ("00:00:00,05", NTSC, "not a timecode"),
    ],
)
def test_what_a_rate_does_not_have_is_refused(text, rate, reason):
    with pytest.raises(ValueError, match=reason):
        frame_number(text, rate)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", Fraction(25, 2)),
        ("1:02.5", Fraction(125, 2)),
        ("90:00", Fraction(5400)),
        ("1:02:03.50", Fraction(7447, 2)),
    ],
)
def test_clock_times(text, seconds):
    assert parse_moment(text) == parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["1:60", "1:02:60", "1:75:00", "1:2:3:4", "00:00:00:00:05", "1:-5", "-1:05", "1:1/2", "1.5:00", ":5", "", "a"],
)
def test_other_times_are_refused(text):
    with pytest.raises(UsageError, match="a time of"):
        parse_moment(text)


def test_four_fields_are_no_duration():
    with pytest.raises(UsageError, match="a time of"):
        parse_time("00:00:00:05")


def config(**options) -> AnimateConfig:
    return AnimateConfig(source=Path("a.png"), driving=Path("a.mov"), **options)


def test_times_in_frames_follow_the_rate_of_the_clip(tmp_path):
    info = probe(write_clip(tmp_path / "a.mov", frames=20, rate=NTSC))
    timed = config(start=Timecode("00:00:00:05"), end=Timecode("00:00:00;10")).timed(info)
    assert (timed.start_s, timed.end_s) == (5 / NTSC, 10 / NTSC)
    assert config(start=Fraction(1)).timed(info).start_s == 1
    with pytest.raises(UsageError, match="leave nothing to animate"):
        config(start=Timecode("00:00:00:05"), end=Timecode("00:00:00:05")).timed(info)
    with pytest.raises(UsageError, match="numbered from 00 to 29"):
        config(start=Timecode("00:00:00:30")).timed(info)


def test_own_timecodes_count_from_that_of_the_clip(tmp_path):
    info = probe(write_clip(tmp_path / "a.mov", frames=20, timecode="10:00:00:00"))
    timed = config(start=Timecode("10:00:00:05"), end=Timecode("10:00:00:15"), timecode=True).timed(info)
    assert (timed.start_s, timed.end_s) == (Fraction(1, 5), Fraction(3, 5))
    with pytest.raises(UsageError, match="is before the start"):
        config(start=Timecode("09:59:59:24"), timecode=True).timed(info)
    plain = probe(write_clip(tmp_path / "b.mov", frames=20))
    with pytest.raises(UsageError, match="has no timecode"):
        config(start=Timecode("10:00:00:05"), timecode=True).timed(plain)
    with pytest.raises(UsageError, match="needs timecodes"):
        config(start=Fraction(1), timecode=True)
