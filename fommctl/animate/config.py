"""The options of `animate`: one frozen configuration, checked as a whole before any work is done."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fommctl.errors import UsageError
from fommctl.media.boxes import Box
from fommctl.media.decoding import Deinterlace
from fommctl.media.probe import VideoInfo
from fommctl.media.sound import check_track
from fommctl.media.timecode import frame_number, is_timecode
from fommctl.presets.config import describe, did_you_mean, nearest

JsonValue = str | int | float | bool | None | list[str]
MotionMode = Literal["relative", "absolute"]
AudioMode = Literal["auto", "driving", "none"]
MissingMode = Literal["hold", "skip", "fail"]
SEARCHED = ("auto", "fixed", "follow")
"""Squares of the driving video that are looked for: the clip decides, one for a shot, one that follows."""


@dataclass(frozen=True, slots=True)
class Timecode:
    """A time in frames, `HH:MM:SS:FF`, or `HH:MM:SS;FF` for drop-frame."""

    text: str

    def __str__(self) -> str:
        return self.text

    def seconds(self, info: VideoInfo, own: bool) -> Fraction:
        """Seconds since the start of a clip.  own: it is the clip's own timecode, which begins where the clip's does.

        Raises UsageError for a number that the clip's rate does not have, and for a time before its start.
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
                raise UsageError(f"{self.text} lies before the start of {name}", f"It starts at {info.timecode}.")
        # Matroska rounds times to milliseconds: a frame must not be lost for that.
        slack = Fraction(1, 2000) if info.container == "matroska" else Fraction(0)
        return max(Fraction(0), frames / rate - slack)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateConfig:
    """What to animate, with what, and how. See `fommctl animate --help` for the meaning of each option."""

    source: Path
    driving: Path
    output: Path | None = None
    """None: `SOURCE--DRIVING.mp4` in the current folder."""
    views: tuple[Path, ...] = ()
    """More pictures of the source's subject, for models that make use of them."""
    # Those that are None here and named in `fommctl.animate.defaults` are left to the model's preset.
    as_published: bool = False
    """What is left open is done as the published code does it, whatever the preset says."""
    motion: MotionMode | None = None
    adapt_scale: bool | None = None
    best_frame: str | None = None
    """`first`, `auto` or the number of a frame of the (trimmed) driving video, from 0."""
    source_width: float | None = None
    """Width of the source's subject over the side of its square."""
    driving_width: float | None = None
    """The same of the driving video."""
    head_motion: float | None = None
    """Share, 0 to 1, of the head's travel through the driving video that the head in the source makes too, where the
    driving square follows."""
    crop: str = "auto"
    """Of the source: `auto`, `none` or `X,Y,SIZE` in pixels."""
    driving_crop: str | None = None
    """Of the driving video: `auto`, `fixed`, `follow`, `none` or `X,Y,SIZE`; None: as `crop`, or `auto` where that is a
    square given by hand."""
    cuts: bool | None = None
    """Give each shot of the driving video its own reference and square."""
    detector: str | None = None
    paste_back: bool | None = None
    """None: where there was a crop."""
    detail: bool | None = None
    """Give frames the detail of the source at full resolution; None: where they are pasted back."""
    restore: Path | None = None
    """Weights of a network that restores or enlarges animated squares before they are pasted back."""
    size: int | None = None
    """Side of the model's frames in pixels."""
    smooth: bool | None = None
    start: Fraction | Timecode | None = None
    end: Fraction | Timecode | None = None
    """Since the start of the driving video, in seconds or frames; `end` exclusive."""
    frames: str | None = None
    """The driving frames that are rendered: `101-200`, `101-`, `-200` or one number; None: all. See `FrameRange`."""
    motion_out: Path | None = None
    """A file for the motion of the driving video, which can be animated in the place of the video."""
    timecode: bool = False
    """Times are the driving video's own timecodes, not counted from its start."""
    audio: AudioMode = "auto"
    audio_track: str = "auto"
    """`auto`, `all` or the number of a sound track of the driving video, from 1."""
    fps: Fraction | None = None
    """Of a folder of frames; for a video, frames are dropped or repeated to this rate."""
    codec: str | None = None
    crf: int | None = None
    pix_fmt: str | None = None
    deinterlace: Deinterlace = "auto"
    """Of interlaced driving footage."""
    on_missing: MissingMode = "hold"
    batch_size: int | None = None
    """None: chosen for the device."""
    compare: bool = False
    keypoints: bool = False
    overwrite: bool = False
    encoder_threads: int | None = None
    """Of the video encoder; None: a quarter of the processor's, at most 4. H.264 and H.265 come out a little different
    with another number."""
    sidecar: bool = False
    """Write OUTPUT.json with all that is needed to render the result again."""
    sign: Path | None = None
    """Certificate chain (PEM, the signer's first) for C2PA content credentials."""
    sign_key: Path | None = None
    """Private key of the first certificate (PEM)."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("motion", MotionMode),
            ("audio", AudioMode),
            ("on_missing", MissingMode),
            ("deinterlace", Deinterlace),
        ):
            if getattr(self, name) is not None or name != "motion":
                check_choice(f"--{name.replace('_', '-')}", getattr(self, name), get_args(choices))
        for name in ("size", "batch_size", "crf", "encoder_threads"):
            if not isinstance(getattr(self, name), int | None):
                raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)!r}", "Give a whole number.")
        check_track(self.audio_track)
        parse_crop(self.crop)
        parse_frames(self.frames)
        if self.driving_crop is not None:
            parse_crop(self.driving_crop, SEARCHED)
        if self.best_frame not in (None, "first", "auto") and not self.best_frame.isdecimal():
            raise UsageError(f"--best-frame is '{self.best_frame}'", "Give first, auto or the number of a frame.")
        if self.timecode and any(isinstance(time, Fraction) for time in (self.start, self.end)):
            raise UsageError("--timecode, but a time is no timecode", "Give --start and --end as HH:MM:SS:FF.")
        if not isinstance(self.start, Timecode) and not isinstance(self.end, Timecode):
            self._check_times(self.start or Fraction(0), self.end)
        for name in ("size", "batch_size", "fps", "encoder_threads"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"--{name.replace('_', '-')} is {value}", "Give a number above zero.")
        for name, most in (("source_width", 2), ("driving_width", 2), ("head_motion", 1)):
            value = getattr(self, name)
            if value is not None and not (0 <= value <= most and (value or name == "head_motion")):
                raise UsageError(f"{name} is {value}", f"Give a number from 0 to {most}.")
        if (self.sign is None) != (self.sign_key is None):
            raise UsageError("--sign and --key belong together", "Give the certificate chain and its private key.")

    @staticmethod
    def _check_times(start: Fraction, end: Fraction | None) -> None:
        if start < 0 or (end is not None and end <= start):
            raise UsageError("--start and --end leave nothing to animate", "Times are seconds; --end must lie later.")

    @property
    def start_s(self) -> Fraction:
        """Seconds since the start of the driving video; timecodes have to be `timed` first."""
        assert not isinstance(self.start, Timecode), "the rate of the driving video is not known yet"
        return self.start or Fraction(0)

    @property
    def end_s(self) -> Fraction | None:
        """Seconds since the start of the driving video, exclusive; None for its end."""
        assert not isinstance(self.end, Timecode), "the rate of the driving video is not known yet"
        return self.end

    def timed(self, info: VideoInfo) -> AnimateConfig:
        """The same with times in seconds. info: of the driving video. Raises UsageError for what it does not have."""
        if not isinstance(self.start, Timecode) and not isinstance(self.end, Timecode):
            return self
        start, end = (
            time.seconds(info, self.timecode) if isinstance(time, Timecode) else time for time in (self.start, self.end)
        )
        return replace(self, start=start, end=end, timecode=False)

    def to_json(self) -> dict[str, JsonValue]:
        """The options as JSON values, for listeners and logs; paths, times and rates as text."""
        values = {name: getattr(self, name) for name in option_names()}
        return {
            name: value
            if value is None or isinstance(value, int | float | str)
            else [str(item) for item in value]
            if isinstance(value, tuple)
            else str(value)
            for name, value in values.items()
        }

    @property
    def result_path(self) -> Path:
        """Where the result goes."""
        return self.output or Path(f"{self.source.stem}--{self.driving.stem}.mp4")

    @property
    def crop_of_driving(self) -> str:
        """`auto`, `fixed`, `follow`, `none` or `X,Y,SIZE`."""
        if self.driving_crop is not None:
            return self.driving_crop
        if self.crop == "none":
            return "none"
        return "fixed" if self.as_published else "auto"


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Driving frames by number, first and last included: from 1 at --start; of a pattern, as in the pictures' names."""

    first: int | None = None
    last: int | None = None

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        return (self.first is None or number >= self.first) and not self.ends_before(number)

    def ends_before(self, number: int) -> bool:
        """Whether this frame and all later ones lie behind the range."""
        return self.last is not None and number > self.last

    def __str__(self) -> str:
        return f"{'' if self.first is None else self.first}-{'' if self.last is None else self.last}"


def parse_frames(text: str | None) -> FrameRange:
    """The range of `101-200`, `101-`, `-200` or `101`; all frames for None. Raises UsageError for anything else."""
    if text is None:
        return FrameRange()
    match = re.fullmatch(r"([0-9]{1,9})?(-)?([0-9]{1,9})?", text.strip())
    first, last = (int(match[group]) if match and match[group] else None for group in (1, 3))
    if match is not None and not match[2]:
        last = first
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        raise UsageError(f"--frames is '{text}'", "Give the numbers of driving frames: 101-200, 101-, -200 or 101.")
    return FrameRange(first, last)


def option_names() -> tuple[str, ...]:
    """The names of all options, for callers that take them as keywords."""
    return tuple(field.name for field in fields(AnimateConfig))


def parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of AnimateConfig from what a caller wrote: each as its type or as text, as in a file of jobs.

    Raises UsageError for one that does not exist or cannot be read.
    """
    for name in options:
        if name not in option_names():
            raise UsageError(
                f"animate has no option '{name}'{did_you_mean(name, option_names())}",
                "Its options are those of 'fommctl animate --help', with underscores.",
            )
    return {name: read_option(name, value) for name, value in options.items()}


def read_option(name: str, value: Any) -> Any:
    """The value of one option of AnimateConfig: `yes` for a boolean, `1:02` for a time, `auto` for --batch-size, ...

    None stays None. Raises UsageError for one that cannot be read.
    """
    if value is None:
        return None
    readers: dict[str, Callable[[str], Any]] = {
        "start": parse_moment,
        "end": parse_moment,
        "fps": parse_rate,
        "batch_size": parse_batch_size,
        "crop": str,
        "driving_crop": str,
    }
    kind = _kinds()[name]
    if kind == tuple[Path, ...]:
        return tuple(map(Path, [value] if isinstance(value, str | Path) else value))
    if name in readers and not isinstance(value, bool):
        return readers[name](str(value))
    if kind is bool:
        return _boolean(name, value)
    if kind is int and isinstance(value, str):
        return _whole(name, value)
    if kind is float:
        return _number(name, value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind not in (int, Path) and isinstance(value, int | float) and not isinstance(value, bool):
        # A crop or a frame whose number a file of jobs holds as a number.
        return str(value)
    if isinstance(value, bool) or not isinstance(value, str | int if kind is int else str | Path):
        raise UsageError(f"--{name.replace('_', '-')} is {describe(value)}", f"Give {_EXPECTED.get(kind, 'text')}.")
    return value


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


@functools.cache
def _kinds() -> Mapping[str, Any]:
    """The type of each option; of one that may be None, the other type."""
    hints = get_type_hints(AnimateConfig)
    return {
        name: hint if get_origin(hint) is tuple else next((kind for kind in get_args(hint) if kind in _EXPECTED), hint)
        for name, hint in hints.items()
    }


def _boolean(name: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise UsageError(f"--{name.replace('_', '-')} is {describe(value)}", "Give true or false.")
    return found


def _whole(name: str, text: str) -> int:
    digits = text.strip()
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", digits):
        raise UsageError(f"--{name.replace('_', '-')} is {describe(text)}", "Give a whole number.")
    return int(digits)


def _number(name: str, value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise UsageError(f"--{name.replace('_', '-')} is {describe(value)}", f"Give {_EXPECTED[float]}.")
    return number


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError with the nearest choice unless value is one of them."""
    if value not in choices:
        close = nearest(value, choices)
        hint = f"Did you mean {close}? " if close else ""
        raise UsageError(f"{option} is '{value}'", f"{hint}Choices: {', '.join(choices)}.")


def parse_crop(text: str, searched: tuple[str, ...] = ("auto",)) -> Box | None:
    """The square of `X,Y,SIZE`; None for `none` and for the words of what is searched. Raises UsageError for anything
    else."""
    if text in (*searched, "none"):
        return None
    try:
        left, top, side = (int(part) for part in text.split(","))
    except (AttributeError, ValueError):
        side = 0
    if side <= 0:
        words = ", ".join((*searched, "none"))
        raise UsageError(f"a crop of '{text}'", f"Give {words} or X,Y,SIZE in pixels, such as 120,40,256.")
    return Box(left, top, left + side, top + side)


def parse_rate(text: str) -> Fraction:
    """A frame rate such as 25, 29.97 or 30000/1001; the NTSC decimals are taken for what they stand for."""
    exact = {"23.976": "24000/1001", "23.98": "24000/1001", "29.97": "30000/1001", "59.94": "60000/1001"}
    try:
        rate = _fraction(exact.get(text, text))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(f"a frame rate of '{text}'", "Give a number such as 25, 29.97 or 30000/1001.")
    return rate


def parse_batch_size(text: str) -> int | None:
    """A number of frames; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--batch-size is '{text}'", "Give auto or a number.")
    return int(text)


def parse_time(text: str) -> Fraction:
    """Seconds (`12.5`) or clock time (`1:02:03.5`, `02:03`)."""
    try:
        *whole, last = text.split(":")
        seconds = _fraction(last)
        if whole:
            # Only the first of several fields may be 60 or more.
            limits = [None] + [60] * (len(whole) - 1)
            counts = [_count(part, limit) for part, limit in zip(whole, limits, strict=True)]
            if len(whole) > 2 or not 0 <= seconds < 60 or "/" in last:
                raise ValueError("no clock time")
            seconds += 60 * sum(count * 60**power for power, count in enumerate(reversed(counts)))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"a time of '{text}'", "Give seconds such as 12.5, or minutes and seconds as 1:02.5."
        ) from error
    return seconds


def parse_moment(text: str) -> Fraction | Timecode:
    """A time of a clip: as of `parse_time`, or a timecode (`HH:MM:SS:FF`)."""
    if is_timecode(text):
        return Timecode(text)
    try:
        return parse_time(text)
    except UsageError as error:
        hint = "Give seconds such as 12.5, minutes and seconds as 1:02.5, or a timecode as HH:MM:SS:FF."
        raise UsageError(error.message, hint) from error


def _count(text: str, limit: int | None) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10) or (limit is not None and int(text) >= limit):
        raise ValueError("no count of minutes or hours")
    return int(text)


def _fraction(text: str) -> Fraction:
    """Raises ValueError, also for a number so large (1e999999999) that to read it would take forever."""
    if len(text) > 40 or re.search(r"[eE][-+]?[\d_]{3}", text):
        raise ValueError("not a sensible number")
    return Fraction(text)
