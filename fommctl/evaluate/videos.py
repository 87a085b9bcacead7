"""Makes side-by-side videos of the clips on the page: the best, the median and the worst."""

from __future__ import annotations

import base64
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import KeypointSource
from fommctl.errors import FommctlError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.jobs import open_stream
from fommctl.evaluate.keypoint_sources import MODEL, ChosenSources, SourceFactory
from fommctl.evaluate.plan import EvaluatedModel, Task, load_engine
from fommctl.evaluate.results import Evaluation
from fommctl.evaluate.streams import FrameBatch
from fommctl.files import write_text
from fommctl.host import Host
from fommctl.media.drawing import RADIUS, colour, draw_keypoints
from fommctl.media.probe import probe
from fommctl.media.reader import Reader
from fommctl.media.resampling import Pixels, resize
from fommctl.media.writer import Writer

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine

log = logging.getLogger(__name__)
VIDEOS = "videos"
MOST_SECONDS = 10
"""Longest video, to keep the page small."""
_CRF = 30
_FEW = 15
"""Number of keypoints above which dots are smaller."""
_SMALLEST = 128
"""Least height of a panel in pixels; smaller frames are enlarged by an integer."""


def shown_keypoints(keypoints: str | None, *, finished: bool) -> str | None:
    """Return the source of the keypoints to draw: that of the metrics, else the model; None for finished results.

    keypoints: `ChosenSources.keypoints`.
    """
    return keypoints if keypoints or finished else MODEL


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame of one model."""

    source: Pixels | None
    driving: Pixels
    prediction: Pixels
    rate: Fraction
    """Frames per second of the clip."""


class SideBySide:
    """Makes the videos of one evaluation; models are loaded for the first one and stay loaded."""

    def __init__(
        self, config: EvaluateConfig, host: Host, models: Sequence[EvaluatedModel], sources: ChosenSources
    ) -> None:
        shown = shown_keypoints(sources.keypoints, finished=config.finished)
        # If each of several models has its own keypoints, none are drawn on the truth.
        self._mark_truth = shown != MODEL or len(models) == 1
        self._config = config
        self._host = host
        self._models = models
        self._sources = SourceFactory(host, replace(sources, keypoints=shown))
        self._engines: list[Engine | None] = []

    def make(self, keys: Mapping[Task, str]) -> dict[str, Path]:
        """Make the videos of these clips and return their paths by name; a failure is logged.

        keys: hashes of everything that each video depends on.  Existing videos with the same hash are kept, all others
        are deleted.
        """
        made: dict[str, Path] = {}
        for task, key in keys.items():
            path = self._config.output / VIDEOS / f"{task.name}.webm"
            note = path.with_suffix(".key")
            if not (path.exists() and note.is_file() and note.read_text() == key):
                try:
                    self._write(task, path)
                except FommctlError as error:
                    log.warning("%s has no video: %s", task.name, error.message)
                    continue
                write_text(note, key)
            made[task.name] = path
        for other in set((self._config.output / VIDEOS).rglob("*.webm")).difference(made.values()):
            other.unlink()
            other.with_suffix(".key").unlink(missing_ok=True)
        return made

    def _write(self, task: Task, path: Path) -> None:
        columns = [self._column(task, number, engine) for number, engine in enumerate(self._loaded())]
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            writer = None
            for shown in zip(*columns, strict=False):
                picture, step = _side_by_side(shown), 1 / shown[0].rate
                if writer is None:
                    height, width = picture.shape[:2]
                    writer = Writer(path, width=width, height=height, rate=1 / step, crf=_CRF, overwrite=True)
                    opened.enter_context(writer)
                if writer.frames_written * step >= MOST_SECONDS:
                    break
                writer.write(picture, writer.frames_written * step, step)

    def _column(self, task: Task, number: int, engine: Engine | None) -> Iterator[Shown]:
        """Yield the frames of one model."""
        stream = open_stream(self._config, task, number, engine)
        rate = Fraction(stream.rate).limit_denominator(100_000)
        keypoints: KeypointSource | None = None
        for index, batch in enumerate(stream):
            if index == 0:
                height, width = batch.driving.shape[1:3]
                keypoints = self._sources.keypoints(task, (width, height), engine)
            driving, prediction = _with_keypoints(batch, keypoints)
            for pair in zip(driving if self._mark_truth else batch.driving, prediction, strict=True):
                yield Shown(batch.source, *pair, rate)

    def _loaded(self) -> list[Engine | None]:
        if not self._engines:
            finished = self._config.finished
            self._engines = [
                None if finished else load_engine(each.model, self._config, self._host) for each in self._models
            ]
        return self._engines


def _side_by_side(columns: Sequence[Shown]) -> Pixels:
    first = columns[0]
    panels = [first.driving, *(column.prediction for column in columns)]
    if first.source is not None:
        panels.insert(0, first.source)
    height = max(panel.shape[0] for panel in panels)
    height *= max(1, -(-_SMALLEST // height))
    return np.concatenate([_scale_to_height(panel, height) for panel in panels], axis=1)


def _with_keypoints(batch: FrameBatch, source: KeypointSource | None) -> tuple[list[Pixels], list[Pixels]]:
    """Return driving frames and predictions, with keypoints drawn on them if there is a source."""
    driving, prediction = list(batch.driving), list(batch.chunk.prediction)
    if source is None:
        return driving, prediction
    try:
        of_prediction, of_driving = source(replace(batch.chunk, truth=batch.driving))
    except FommctlError as error:
        log.debug("keypoints cannot be drawn: %s", error.message)
        return driving, prediction
    assert of_driving is not None
    return (
        [_with_points(frame, points) for frame, points in zip(driving, of_driving, strict=True)],
        [_with_points(frame, points) for frame, points in zip(prediction, of_prediction, strict=True)],
    )


def _with_points(frame: Pixels, points: NDArray[np.float64]) -> Pixels:
    """Draw points (K, 2) in pixels; NaN are skipped and do not change the colours of others."""
    height, width = frame.shape[:2]
    present = np.flatnonzero(np.isfinite(points).all(axis=1)).tolist()
    colours = [colour(number, len(points)) for number in present]
    # Smaller dots keep a face visible behind 68 landmarks.
    radius = max(1.0, min(height, width) * RADIUS * min(1.0, _FEW / max(1, len(points))))
    places = points[present] / np.array((width - 1, height - 1)) * 2 - 1
    return draw_keypoints(frame, places, radius=radius, colours=colours)


def _scale_to_height(panel: Pixels, height: int) -> Pixels:
    factor, rest = divmod(height, panel.shape[0])
    if not rest:
        # Enlarging by an integer keeps pixels sharp.
        return panel.repeat(factor, axis=0).repeat(factor, axis=1)
    return resize(panel, (max(1, round(panel.shape[1] * height / panel.shape[0])), height))


LARGEST_VIDEO = 4_000_000
"""Most bytes of a video that is embedded unchanged; a larger one is shortened."""
SHORTENED_WIDTH = 960
SHORTENED_SECONDS = (10, 5, 2)
"""Lengths to try in this order until the video is small enough."""
_SHORTENED_CRF = 36
_ROUNDING = 0.1
"""Tolerance of lengths in seconds, as WebM has milliseconds, and may not count the last frame."""


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A clip on the page."""

    role: str
    """Place of the clip: best, median or worst; empty if clips are not ordered."""
    clip: int
    """Index among the clips of the evaluation."""


@dataclass(frozen=True, slots=True)
class EmbeddedVideo:
    """A video that is embedded in the page."""

    uri: str
    """Data URI, `data:video/webm;base64,...`."""
    width: int
    height: int
    first_seconds: float | None
    """Length if only the start of the clip is shown; None for the whole clip."""
    reduced: bool
    """Whether the frames were reduced in size."""


def shown_clips(evaluation: Evaluation) -> tuple[str | None, tuple[ShownClip, ...]]:
    """Return the metric that orders the clips, and the best, the median and the worst clip.

    This is the first metric with values for single clips. Without one, returns None and the first three clips.
    """
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
            places = {0: "best", len(ordered) - 1: "worst", (len(ordered) - 1) // 2: "median"}
            if len(ordered) < 3:
                places = {0: "best", len(ordered) - 1: "worst"} if len(ordered) == 2 else {0: ""}
            return metric, tuple(ShownClip(places[place], ordered[place]) for place in sorted(places))
    readable = [clip for clip, frames in enumerate(evaluation.frames) if frames]
    return None, tuple(ShownClip("", clip) for clip in readable[:3])


def embedded_videos(
    evaluation: Evaluation, shown: tuple[ShownClip, ...], videos: Mapping[str, Path]
) -> dict[int, EmbeddedVideo]:
    """Return the embedded videos of the shown clips by index. Raises InputError if one cannot be read.

    videos: paths by name of the clip.
    """
    embedded = {}
    for clip in (one.clip for one in shown):
        if (path := videos.get(evaluation.clips[clip])) is not None:
            seconds = evaluation.frames[clip] / evaluation.rates[clip] if evaluation.rates else None
            embedded[clip] = embedded_video(path, seconds)
    return embedded


def embedded_video(path: Path, clip_seconds: float | None = None) -> EmbeddedVideo:
    """Return a WebM file as a data URI: unchanged up to LARGEST_VIDEO bytes, else its first seconds in a smaller size.

    clip_seconds: length of the clip, which may be longer than the video; None for that of the video.
    """
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
