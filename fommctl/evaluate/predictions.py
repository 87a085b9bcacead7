"""What is scored, as a stream of parts; here those of finished results, in `rendered` those of models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import FrameChunk
from fommctl.errors import InputError
from fommctl.evaluate.footage import Footage, groups
from fommctl.media.resampling import Pixels
from fommctl.threads import ReadAhead

CHUNK = 16
"""Frames at a time: memory does not grow with the length of a clip."""


@dataclass(frozen=True, slots=True)
class Part:
    """A few consecutive frames."""

    chunk: FrameChunk
    source: Pixels | None
    """(H, W, 3): what was animated; None for finished results."""
    driving: NDArray[np.uint8]
    """(N, H, W, 3): what is shown beside the prediction; in a reconstruction the truth."""

    def against_source(self) -> FrameChunk:
        """The prediction held against the source picture, for metrics of identity where there is no truth."""
        if self.source is None or self.chunk.truth is not None:
            return self.chunk
        return replace(self.chunk, truth=np.broadcast_to(self.source, (len(self.chunk), *self.source.shape)))

    def against_driving(self) -> FrameChunk:
        """The prediction held against the driving frames, for metrics of motion where there is no truth."""
        return self.chunk if self.chunk.truth is not None else replace(self.chunk, truth=self.driving)


@dataclass
class Stream:
    """The parts of one clip; iterate once."""

    parts: Iterable[Part]
    rate: float
    warnings: list[str] = field(default_factory=list)

    ahead: int = 0
    """So many parts are made in a thread of their own while others are scored: for files, which wait for the disk and
    the codec. A model computes in the thread that also asks it for keypoints."""

    def __iter__(self) -> Iterator[Part]:
        if not self.ahead:
            yield from self.parts
            return
        with ReadAhead(self.parts, self.ahead) as parts:
            yield from parts


def finished(prediction: Footage, truth: Footage) -> Stream:
    """A finished result beside its reference, as far as both go."""
    warnings: list[str] = []

    def parts() -> Iterator[Part]:
        predicted, true = iter(prediction), iter(truth)
        first = 0
        while True:
            ours, theirs = _next(predicted), _next(true)
            common = min(len(ours), len(theirs))
            if common:
                chunk = FrameChunk(_stacked(ours[:common], theirs[:common]), np.stack(theirs[:common]), None, first)
                yield Part(chunk, None, np.stack(theirs[:common]))
            first += common
            if len(ours) != len(theirs):
                rest = sum(1 for _ in (predicted if len(ours) > len(theirs) else true)) + abs(len(ours) - len(theirs))
                which = "prediction" if len(ours) > len(theirs) else "truth"
                warnings.append(f"the {which} has {rest} frames more; the first {first} were compared")
            if common < CHUNK:
                break
        warnings.extend(f"prediction: {text}" for text in prediction.warnings)
        warnings.extend(f"truth: {text}" for text in truth.warnings)

    return Stream(parts(), float(truth.rate), warnings, ahead=2)


def _next(frames: Iterator[Pixels]) -> list[Pixels]:
    return next(groups(frames, CHUNK), [])


def _stacked(ours: list[Pixels], theirs: list[Pixels]) -> NDArray[np.uint8]:
    if ours[0].shape != theirs[0].shape:
        (height, width), (true_height, true_width) = ours[0].shape[:2], theirs[0].shape[:2]
        raise InputError(
            f"the prediction is {width}x{height} and the truth {true_width}x{true_height}",
            "Give --resize to resize predictions, or --column where they are one column of a grid.",
        )
    return np.stack(ours)
