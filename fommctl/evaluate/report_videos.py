"""The clips that the page shows, the best, the median and the worst, and their videos, small enough for it."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fommctl.evaluate.results import Evaluation
from fommctl.media.probe import probe
from fommctl.media.reader import Reader
from fommctl.media.writer import Writer

LARGEST_VIDEO = 4_000_000
"""Bytes that are taken as they are; a larger video is shortened."""
SHORTENED_WIDTH = 960
SHORTENED_SECONDS = (10, 5, 2)
"""Tried in this order until the video is small enough."""
_SHORTENED_CRF = 36
_ROUNDING = 0.1
"""Seconds: WebM states lengths to the millisecond, and not always with the last frame."""


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A clip with its place among the others."""

    role: str
    """best, median or worst; empty where nothing orders them."""
    clip: int
    """Index among the clips of the evaluation."""


@dataclass(frozen=True, slots=True)
class EmbeddedVideo:
    """A video as part of the page."""

    uri: str
    """data:video/webm;base64,..."""
    width: int
    height: int
    first_seconds: float | None
    """How much of the clip it shows, where that is not all of it."""
    reduced: bool
    """Smaller than the file's own frames?"""


def shown_clips(evaluation: Evaluation) -> tuple[str | None, tuple[ShownClip, ...]]:
    """The metric that orders the clips, which is the first that has values of single clips, and the best, the median
    and the worst clip by its mean over the models. Without such a metric: None, and the first three clips."""
    for metric, info in evaluation.metrics.items():
        columns = zip(*(evaluation.clip_scores(model, metric) for model in evaluation.models), strict=True)
        means: dict[int, float] = {}
        for clip, scores in enumerate(columns):
            values = [one.value for one in scores if one is not None and one.value is not None]
            if len(values) == len(scores) and all(map(math.isfinite, values)):
                means[clip] = sum(values) / len(values)
        if means:
            sign = 1 if info.lower_is_better else -1
            ordered = sorted(means, key=lambda clip: sign * means[clip])
            # Where there are fewer than three clips, the ends matter more than the middle.
            places = {0: "best", len(ordered) - 1: "worst", (len(ordered) - 1) // 2: "median"}
            if len(ordered) < 3:
                places = {0: "best", len(ordered) - 1: "worst"} if len(ordered) == 2 else {0: ""}
            return metric, tuple(ShownClip(places[place], ordered[place]) for place in sorted(places))
    there = [clip for clip, frames in enumerate(evaluation.frames) if frames]
    return None, tuple(ShownClip("", clip) for clip in there[:3])


def embedded_videos(
    evaluation: Evaluation, shown: tuple[ShownClip, ...], videos: Mapping[str, Path]
) -> dict[int, EmbeddedVideo]:
    """By clip, of those that have a video. Raises InputError for one that cannot be read."""
    embedded = {}
    for clip in (one.clip for one in shown):
        if (path := videos.get(evaluation.clips[clip])) is not None:
            seconds = evaluation.frames[clip] / evaluation.rates[clip] if evaluation.rates else None
            embedded[clip] = embedded_video(path, seconds)
    return embedded


def embedded_video(path: Path, clip_seconds: float | None = None) -> EmbeddedVideo:
    """A WebM file as a data URI: as it is up to LARGEST_VIDEO bytes, else its first seconds at a reduced size.

    clip_seconds: length of what it was made from, which may be longer than the file; None: not known."""
    length = _seconds(path) if clip_seconds is None else clip_seconds
    if path.stat().st_size <= LARGEST_VIDEO:
        return _embedded(path, length, reduced=False)
    with tempfile.TemporaryDirectory(prefix="fommctl-report-") as folder:
        for seconds in SHORTENED_SECONDS:
            short = Path(folder) / f"{seconds}.webm"
            _shorten(path, short, seconds)
            if short.stat().st_size <= LARGEST_VIDEO:
                break
        return _embedded(short, length, reduced=True)


def _shorten(path: Path, target: Path, seconds: int) -> None:
    info = probe(path)
    width = min(info.width, SHORTENED_WIDTH)
    size = (width, max(1, round(info.height * width / info.width)))
    with (
        Reader(path, end=Fraction(seconds), size=size) as reader,
        Writer(target, width=size[0], height=size[1], rate=info.rate, crf=_SHORTENED_CRF) as writer,
    ):
        for frame in reader:
            writer.write(frame.pixels, frame.time, frame.duration)


def _embedded(path: Path, length: float | None, *, reduced: bool) -> EmbeddedVideo:
    info = probe(path)
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    seconds = _seconds(path)
    cut = seconds is not None and length is not None and seconds < length - _ROUNDING
    return EmbeddedVideo(
        f"data:video/webm;base64,{encoded}", info.width, info.height, seconds if cut else None, reduced
    )


def _seconds(path: Path) -> float | None:
    duration = probe(path).duration
    return None if duration is None else float(duration)
