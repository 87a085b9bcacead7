"""The steps of a divided rendering: what can be handed to a worker, and in which order."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.animate.config import AnimateConfig
from fommctl.animate.engine import Engine
from fommctl.animate.motion import Memory
from fommctl.animate.preparation import Settled, settle
from fommctl.animate.result import AnimateResult
from fommctl.animate.run import run
from fommctl.animate.splitting import segments
from fommctl.animate.splitting.planning import Plan, Segment
from fommctl.animate.splitting.segments import NotAsPlannedError, RenderedSegment, Seen
from fommctl.animate.streaming import Progress
from fommctl.files import real_target, temporary_path
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import is_pattern


class Step(ABC):
    """One thing that one worker does; can be pickled, as its result can."""

    @abstractmethod
    def __call__(self, engine: Engine, report: Progress | None = None) -> Any:
        """Do it. Raises as `animate` does, and NotAsPlannedError."""


@dataclass(frozen=True, slots=True, eq=False)
class Begin(Step):
    """Look at the inputs and divide; the result is (Settled, Plan or None)."""

    config: AnimateConfig
    pieces: int
    shortest: int
    folder: Path

    def __call__(self, engine: Engine, report: Progress | None = None) -> tuple[Settled, Plan | None]:
        """Do it."""
        settled = settle(self.config, engine)
        plan = segments.begin(engine, settled, self.pieces, self.shortest)
        if plan is not None:
            with output_errors(self.config.result_path):
                self.folder.mkdir()
        return settled, plan


@dataclass(frozen=True, slots=True, eq=False)
class Look(Step):
    """Detect the motion of a segment's frames; the result is Seen."""

    settled: Settled
    plan: Plan
    segment: Segment

    def __call__(self, engine: Engine, report: Progress | None = None) -> Seen:
        """Do it."""
        return segments.look(engine, self.settled, self.plan, self.segment)


@dataclass(frozen=True, slots=True, eq=False)
class Remember(Step):
    """Run the choreography over all that was seen; the result is its memory at the beginning of each later segment."""

    settled: Settled
    plan: Plan
    seen: tuple[Seen, ...]

    def __call__(self, engine: Engine, report: Progress | None = None) -> tuple[Memory, ...]:
        """Do it."""
        return segments.remember(engine, self.settled, self.seen)


@dataclass(frozen=True, slots=True, eq=False)
class Render(Step):
    """Render a segment; the result is RenderedSegment."""

    settled: Settled
    plan: Plan
    segment: Segment
    memory: Memory | None
    folder: Path

    def __call__(self, engine: Engine, report: Progress | None = None) -> RenderedSegment:
        """Do it."""
        return segments.render(engine, self.settled, self.plan, self.segment, self.memory, self.folder, report)


@dataclass(frozen=True, slots=True, eq=False)
class Join(Step):
    """Make the result; it is AnimateResult."""

    settled: Settled
    parts: tuple[RenderedSegment, ...]
    seconds: float

    def __call__(self, engine: Engine, report: Progress | None = None) -> AnimateResult:
        """Do it."""
        return segments.join(engine, self.settled, self.parts, self.seconds)


class DividedRun:
    """The steps of one rendering as they become possible; knows nothing of who does them.

    Ask `steps` for what can be done now, tell `done` its result, until `finished` or `whole`; `close` it in any case.
    """

    def __init__(self, config: AnimateConfig, pieces: int, shortest: int = 1) -> None:
        """pieces: segments at most.  shortest: driving frames of a segment at least."""
        self.finished: AnimateResult | None = None
        self.whole = False
        """Whether it has to be rendered in one piece, by `animate.run`."""
        self.plan: Plan | None = None
        self._folder = _folder_of(config.result_path)
        self._seen: dict[int, Seen] = {}
        self._parts: dict[int, RenderedSegment] = {}
        self._began = 0.0
        self._frames: dict[Step, int] = {}
        self._ready: list[Step] = [Begin(config, pieces, shortest, self._folder)]

    def steps(self) -> list[Step]:
        """Those that nobody was given yet and that can be done, in any order, at once."""
        ready, self._ready = self._ready, []
        return ready

    def done(self, step: Step, result: Any) -> None:
        """Take the result of a step."""
        match step:
            case Begin():
                settled, self.plan = result
                self._began = time.perf_counter()
                if self.plan is None:
                    self.whole = True
                elif settled.config.smooth:
                    self._ready += [Look(settled, self.plan, segment) for segment in self.plan.segments]
                else:
                    self._render(settled, self.plan, (None,) * len(self.plan.segments))
            case Look():
                self._seen[step.segment.number] = result
                if len(self._seen) == len(step.plan.segments):
                    self._ready.append(Remember(step.settled, step.plan, _in_order(self._seen)))
            case Remember():
                self._render(step.settled, step.plan, (None, *result))
            case Render():
                self._parts[step.segment.number] = result
                if len(self._parts) == len(step.plan.segments):
                    seconds = time.perf_counter() - self._began
                    self._ready.append(Join(step.settled, _in_order(self._parts), seconds))
            case Join():
                self.finished = result

    def not_as_planned(self) -> None:
        """Give the division up: a step raised NotAsPlannedError."""
        self.whole = True
        self._ready.clear()

    def progress(self, step: Step, frames: int) -> tuple[int, int | None]:
        """(frames done, frames in all or None) of the whole, now that a step has rendered so many."""
        self._frames[step] = frames
        return sum(self._frames.values()), None if self.plan is None else self.plan.frames

    def close(self) -> None:
        """Remove the parts that are left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _render(self, settled: Settled, plan: Plan, memories: Sequence[Memory | None]) -> None:
        for segment, memory in zip(plan.segments, memories, strict=True):
            self._ready.append(Render(settled, plan, segment, memory, self._folder))


def run_divided(
    config: AnimateConfig, engine: Engine, pieces: int, perform: Callable[[Step], Any] | None = None
) -> AnimateResult:
    """Render in segments, one after the other in this process.  perform(step): in the place of `step(engine)`."""
    divided = DividedRun(config, pieces)
    try:
        while not divided.whole:
            for step in divided.steps():
                divided.done(step, perform(step) if perform else step(engine))
            if divided.finished is not None:
                return divided.finished
    except NotAsPlannedError:
        pass
    finally:
        divided.close()
    return run(config, engine)


def _folder_of(output: Path) -> Path:
    """A hidden folder for the parts, on the disk of the output; it is swept as other leftovers are."""
    target = real_target(output)
    if not is_pattern(target):
        return temporary_path(target).with_suffix("")
    place = target.parent if target.parent.exists() else target.parent.parent
    return place / temporary_path(target.parent).name


def _in_order(found: dict[int, Any]) -> tuple[Any, ...]:
    return tuple(found[number] for number in sorted(found))
