"""What plugins and stages hand to each other: clips of a data set, subjects in a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fommctl.media.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord:
    """One clip of a raw data set."""

    name: str
    """Unique among the clips of its identity; becomes the part after `IDENTITY#` in the training layout."""
    identity: str
    """Who or what is seen; a split never divides an identity."""
    split: Split | None = None
    path: Path | None = None
    """The raw file or folder of frames; None where `frames` makes the clip."""
    frames: Callable[[], Iterator[NDArray[np.uint8]]] | None = None
    """Makes (H, W, 3) uint8 frames on the fly (synthetic data, pictures inside other files). A method, a function of a
    module or a functools.partial of these, no lambda: worker processes are handed it."""
    rate: Fraction | float | None = None
    """Frames a second of a folder of frames and of `frames`, 25 where the data set does not say; a video states its
    own."""
    start: float | None = None
    """Seconds since the first frame of the file."""
    end: float | None = None
    """Seconds, exclusive."""
    box: Box | None = None
    """Of the subject, in pixels; None where the whole frame is wanted."""
    box_frame: tuple[int, int] | None = None
    """(width, height) of the frames in which `box` was measured, where they may be of another size than those of the
    file: the box is then scaled by the quotients of both."""
    keypoints: Callable[[], NDArray[np.float64]] | None = None
    """Makes the true keypoints (T, K, 2) in [-1, 1] of the raw picture, x before y, corner pixels at -1 and 1, NaN
    where one is hidden; for metrics. T is the number of frames of the file or of `frames`, before `start` and `end` cut
    it. As `frames`, no lambda."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One subject in one picture."""

    box: Box
    """As dlib's HOG detector would measure it: for a face, eyebrows to chin and ear to ear, roughly square."""
    score: float
    """Higher is surer; comparable within one detector only."""
    landmarks: NDArray[np.float32] | None = None
    """(N, 2), x before y, pixels; NaN where a point of the subject is hidden."""
