"""One job of a long driving video in several processes: one makes the motion, many render, one encodes."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig, FrameRange
from fommctl.animate.engine import Engine
from fommctl.animate.motion import Motion
from fommctl.animate.plan import AnimationPlan
from fommctl.animate.rendering import usual_batch_size
from fommctl.animate.result import AnimateResult
from fommctl.animate.run import Progress, RenderedFrames
from fommctl.files import real_target, temporary_path
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import is_pattern


class Step(ABC):
    """One thing that one worker does; can be pickled, as its result can."""

    @abstractmethod
    def __call__(self, engine: Engine, report: Progress | None = None) -> Any:
        """Do it. Raises as `animate` does."""


@dataclass(frozen=True, slots=True, eq=False)
class Begin(Step):
    """Plan the job, make the motion and divide; the result is (AnimationPlan, Motion, ranges)."""

    config: AnimateConfig
    pieces: int
    shortest: int
    folder: Path

    def __call__(
        self, engine: Engine, report: Progress | None = None
    ) -> tuple[AnimationPlan, Motion, list[FrameRange]]:
        """Do it."""
        plan, motion = animate.make_motion(self.config, engine)
        size = plan.config.batch_size or usual_batch_size(engine.device)
        ranges = animate.divide(plan, motion, self.pieces, batch_size=size, shortest=self.shortest)
        with output_errors(self.config.result_path):
            self.folder.mkdir(exist_ok=True)
        return plan, motion, ranges


@dataclass(frozen=True, slots=True, eq=False)
class Render(Step):
    """Render a range of frames."""

    plan: AnimationPlan
    motion: Motion
    frames: FrameRange
    folder: Path

    def __call__(self, engine: Engine, report: Progress | None = None) -> RenderedFrames:
        """Do it."""
        return animate.render_frames(self.plan, self.motion, engine, self.frames, self.folder, report)


@dataclass(frozen=True, slots=True, eq=False)
class Join(Step):
    """Encode the result."""

    plan: AnimationPlan
    motion: Motion
    parts: tuple[RenderedFrames, ...]

    def __call__(self, engine: Engine, report: Progress | None = None) -> AnimateResult:
        """Do it."""
        return animate.encode_frames(self.plan, self.motion, engine, self.parts)


class DividedRun:
    """The steps of one job as they become possible; knows nothing of who does them.

    Ask `steps` for what can be done now, tell `done` its result, until `finished`; `close` it in any case.
    """

    def __init__(self, config: AnimateConfig, pieces: int, shortest: int = 1) -> None:
        """pieces: ranges at most.  shortest: driving frames of a range at least."""
        self.finished: AnimateResult | None = None
        self._folder = _folder_of(config.result_path)
        self._parts: list[RenderedFrames] = []
        self._ranges: list[FrameRange] = []
        self._frames: dict[Step, int] = {}
        self._total: int | None = None
        self._ready: list[Step] = [Begin(config, pieces, shortest, self._folder)]

    def steps(self) -> list[Step]:
        """Those that nobody was given yet and that can be done, in any order, at once."""
        ready, self._ready = self._ready, []
        return ready

    def done(self, step: Step, result: Any) -> None:
        """Take the result of a step."""
        match step:
            case Begin():
                plan, motion, self._ranges = result
                self._total = sum(number in each for number in motion.numbers.tolist() for each in self._ranges)
                self._ready += [Render(plan, motion, each, self._folder) for each in self._ranges]
            case Render():
                self._parts.append(result)
                if len(self._parts) == len(self._ranges):
                    self._ready.append(Join(step.plan, step.motion, tuple(self._parts)))
            case Join():
                self.finished = result

    def progress(self, step: Step, frames: int) -> tuple[int, int | None]:
        """(frames done, frames in all or None) of the whole, now that a step has rendered so many."""
        self._frames[step] = frames
        return sum(self._frames.values()), self._total

    def close(self) -> None:
        """Remove the pictures that are left."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder_of(output: Path) -> Path:
    """A hidden folder for the pictures, on the disk of the output; it is swept as other leftovers are."""
    target = real_target(output)
    if not is_pattern(target):
        return temporary_path(target).with_suffix("")
    place = target.parent if target.parent.exists() else target.parent.parent
    return place / temporary_path(target.parent).name
