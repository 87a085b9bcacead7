"""A video as source: the driving frame of a time moves the source's frame of the same time, to the end of the shorter
video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from fommctl.animate.config import AnimateConfig
from fommctl.animate.detecting import with_landmarks
from fommctl.animate.inputs import AnimationInputs, framed, open_source, square_at
from fommctl.animate.plan import AnimationPlan
from fommctl.api.protocols import Renderer, SourceContext
from fommctl.detection.landmarks import LandmarkFinder
from fommctl.media.images import Picture
from fommctl.media.reader import Frame
from fommctl.networks.grids import to_tensor
from fommctl.networks.motion import MotionParts


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """A frame of the source, ready to be animated."""

    inputs: AnimationInputs
    """The plan's, with this picture and its square."""
    context: SourceContext
    motion: MotionParts
    present: bool
    """Whether it shows the subject; where it does not, it stays as it is."""


class SourceFilm:
    """Reads the frames of a source in the order of time, and encodes those that are asked for."""

    def __init__(self, plan: AnimationPlan, renderer: Renderer, landmarks: LandmarkFinder | None) -> None:
        self._plan, self._renderer, self._landmarks = plan, renderer, landmarks
        self._frames = _shown(plan.config)
        self._coming: Frame | None = next(self._frames)
        self._here: Frame | None = None
        self._encoded: SourceFrame | None = None

    def at(self, time: Fraction) -> SourceFrame:
        """Return what the source shows at this time, not before that of the last call."""
        while self._coming is not None and (self._here is None or self._coming.time <= time):
            self._here, self._encoded = self._coming, None
            self._coming = next(self._frames, None)
        assert self._here is not None
        if self._encoded is None:
            self._encoded = self._prepared(self._here)
        return self._encoded

    def _prepared(self, frame: Frame) -> SourceFrame:
        plan, film = self._plan, self._plan.inputs.film
        assert film is not None
        box, turned = square_at(film, frame.time)
        square = framed(frame.pixels, box, turned, plan.inputs.size, plan.config)
        inputs = replace(plan.inputs, picture=Picture(frame.pixels), source_box=box, turned=turned, square=square)
        pictures = to_tensor([square, *plan.inputs.views], self._renderer.device)
        context = self._renderer.encode_source(pictures)
        motion = with_landmarks(context.motion, self._landmarks, [square])
        return SourceFrame(inputs, context, motion, film.present(frame.time))


def _shown(config: AnimateConfig) -> Iterator[Frame]:
    with open_source(config) as clip, clip.reader() as reader:
        yield from reader
