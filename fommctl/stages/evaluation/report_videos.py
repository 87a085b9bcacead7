"""The clips that the page shows, the best, the median and the worst, and their videos, small enough for it."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fommctl.media.probe import probe
from fommctl.media.reader import Reader
from fommctl.media.writer import Writer
from fommctl.stages.evaluation.results import Evaluation

LARGEST_VIDEO = 4_000_000
"""Bytes that are taken as they are; a larger video is shortened."""
SHORTENED_WIDTH = 960
SHORTENED_SECONDS = (10, 5, 2)
"""Tried in this order until the video is small enough."""
_SHORTENED_CRF = 36


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
    seconds: float | None
    """Length, where the file states it."""
    shortened: bool
    """The file is longer or larger than this."""


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
    names = {one.clip: evaluation.clips[one.clip] for one in shown}
    return {clip: embedded_video(videos[name]) for clip, name in names.items() if name in videos}


def embedded_video(path: Path) -> EmbeddedVideo:
    """A WebM file as a data URI: as it is up to LARGEST_VIDEO bytes, else its first seconds at a reduced size."""
    if path.stat().st_size <= LARGEST_VIDEO:
        return _embedded(path, shortened=False)
    with tempfile.TemporaryDirectory(prefix="fommctl-report-") as folder:
        for seconds in SHORTENED_SECONDS:
            short = Path(folder) / f"{seconds}.webm"
            _shorten(path, short, seconds)
            if short.stat().st_size <= LARGEST_VIDEO:
                break
        return _embedded(short, shortened=True)


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


def _embedded(path: Path, *, shortened: bool) -> EmbeddedVideo:
    info = probe(path)
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    seconds = None if info.duration is None else float(info.duration)
    return EmbeddedVideo(f"data:video/webm;base64,{encoded}", info.width, info.height, seconds, shortened)
