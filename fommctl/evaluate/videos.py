"""Side-by-side videos: source, truth and the prediction of every model, with keypoints."""

from __future__ import annotations

import logging
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
from fommctl.evaluate.contestants import Contestant, load_engine
from fommctl.evaluate.measuring import Measures, Sources
from fommctl.evaluate.plan import Task
from fommctl.evaluate.predictions import Part
from fommctl.evaluate.sources import MODEL
from fommctl.evaluate.streams import open_stream
from fommctl.files import write_text
from fommctl.host import Host
from fommctl.media.drawing import RADIUS, colour, draw_keypoints
from fommctl.media.resampling import Pixels, resize
from fommctl.media.writer import Writer

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine

log = logging.getLogger(__name__)
FOLDER = "videos"
MOST_SECONDS = 10
"""Of a clip: what the page shows has to stay small."""
_CRF = 30
_FEW = 15
"""More keypoints than these are drawn with smaller dots."""
_SMALLEST = 128
"""Height of a panel in pixels: smaller frames are enlarged by a whole factor."""


def shown_keypoints(keypoints: str | None, *, finished: bool) -> str | None:
    """Whose keypoints are drawn: those that metrics ask for (`Sources.keypoints`), else each model's own. Of several
    models that are measured with their own, the truth is shown without any."""
    return keypoints if keypoints or finished else MODEL


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame of one model."""

    source: Pixels | None
    driving: Pixels
    prediction: Pixels
    rate: Fraction


class SideBySide:
    """Makes the videos of one evaluation; models are loaded when the first is made and stay loaded."""

    def __init__(self, config: EvaluateConfig, host: Host, contestants: Sequence[Contestant], sources: Sources) -> None:
        shown = shown_keypoints(sources.keypoints, finished=config.finished)
        # What one model finds in the truth says nothing about the results of the others.
        self._mark_truth = shown != MODEL or len(contestants) == 1
        self._config = config
        self._host = host
        self._contestants = contestants
        self._measures = Measures(host, replace(sources, keypoints=shown))
        self._engines: list[Engine | None] = []

    def make(self, keys: Mapping[Task, str]) -> dict[str, Path]:
        """The videos of these clips by name; a clip whose video fails has none, which is logged.

        keys: of all that each video depends on; one that is there under its key stays. Others are removed.
        """
        made: dict[str, Path] = {}
        for task, key in keys.items():
            path = self._config.output / FOLDER / f"{task.name}.webm"
            note = path.with_suffix(".key")
            if not (path.exists() and note.exists() and note.read_text() == key):
                try:
                    self._write(task, path)
                except FommctlError as error:
                    log.warning("%s has no video: %s", task.name, error.message)
                    continue
                write_text(note, key)
            made[task.name] = path
        for other in set((self._config.output / FOLDER).rglob("*.webm")).difference(made.values()):
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
        """What one model contributes, frame by frame."""
        stream = open_stream(self._config, task, number, engine)
        rate = Fraction(stream.rate).limit_denominator(100_000)
        keypoints: KeypointSource | None = None
        for index, part in enumerate(stream):
            if index == 0:
                height, width = part.driving.shape[1:3]
                keypoints = self._measures.keypoints(task, (width, height), engine)
            driving, prediction = _marked(part, keypoints)
            for pair in zip(driving if self._mark_truth else part.driving, prediction, strict=True):
                yield Shown(part.source, *pair, rate)

    def _loaded(self) -> list[Engine | None]:
        if not self._engines:
            finished = self._config.finished
            self._engines = [
                None if finished else load_engine(each.model, self._config, self._host) for each in self._contestants
            ]
        return self._engines


def _side_by_side(columns: Sequence[Shown]) -> Pixels:
    first = columns[0]
    panels = [first.driving, *(column.prediction for column in columns)]
    if first.source is not None:
        panels.insert(0, first.source)
    height = max(panel.shape[0] for panel in panels)
    height *= max(1, -(-_SMALLEST // height))
    return np.concatenate([_as_high(panel, height) for panel in panels], axis=1)


def _marked(part: Part, source: KeypointSource | None) -> tuple[list[Pixels], list[Pixels]]:
    """Driving frames and predictions with their keypoints, where there are any."""
    driving, prediction = list(part.driving), list(part.chunk.prediction)
    if source is None:
        return driving, prediction
    try:
        of_prediction, of_driving = source(replace(part.chunk, truth=part.driving))
    except FommctlError as error:
        log.debug("no keypoints are drawn: %s", error.message)
        return driving, prediction
    assert of_driving is not None
    return (
        [_with_points(frame, points) for frame, points in zip(driving, of_driving, strict=True)],
        [_with_points(frame, points) for frame, points in zip(prediction, of_prediction, strict=True)],
    )


def _with_points(frame: Pixels, points: NDArray[np.float64]) -> Pixels:
    """points: (K, 2) in pixels; those that are absent (NaN) are left out, and the others keep their colours."""
    height, width = frame.shape[:2]
    there = np.flatnonzero(np.isfinite(points).all(axis=1)).tolist()
    colours = [colour(number, len(points)) for number in there]
    # A face of 68 landmarks must still be seen behind them.
    radius = max(1.0, min(height, width) * RADIUS * min(1.0, _FEW / max(1, len(points))))
    places = points[there] / np.array((width - 1, height - 1)) * 2 - 1
    return draw_keypoints(frame, places, radius=radius, colours=colours)


def _as_high(panel: Pixels, height: int) -> Pixels:
    factor, rest = divmod(height, panel.shape[0])
    if not rest:
        # Small frames show their own pixels.
        return panel.repeat(factor, axis=0).repeat(factor, axis=1)
    return resize(panel, (max(1, round(panel.shape[1] * height / panel.shape[0])), height))
