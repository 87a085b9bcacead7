"""The tasks of a farm job: detect the motion, render chunks of frames, and encode them.

A finished task that is run again changes nothing, and a task that is interrupted leaves no half-written file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fommctl.animate.config import FrameRange, parse_frames
from fommctl.animate.engine import Engine
from fommctl.animate.faces import together
from fommctl.animate.motion import Motion, save_motions
from fommctl.animate.plan import AnimationPlan, check_outputs, input_files, plan_animation
from fommctl.animate.results import frame_path, picture_number
from fommctl.animate.run import (
    RenderedFrames,
    RenderStats,
    encode_frames,
    make_motion,
    render,
    render_frames,
)
from fommctl.errors import InputError, UsageError
from fommctl.farm.shot import DONE, FRAMES, MOTION, SETTLED, SHOT, FarmShot, PathMapping
from fommctl.files import FileFingerprint, read_regular, remove_stale_files, write_text
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import numbered
from fommctl.workers import Progress

Load = Callable[[FarmShot], Engine]
"""load(shot): loads the shot's model; not called if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class DoneChunk:
    """The result of a chunk."""

    pictures: tuple[Path, ...]
    """File names of its frames."""
    stats: RenderStats | None
    """Statistics for the result; None if no task encodes the frames."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task."""

    task: str
    output: Path
    frames: int
    """Number of frames, made in this run or an earlier one."""
    kept: bool
    """Whether an earlier run had finished the task."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {"task": self.task, "output": str(self.output), "frames": self.frames, "kept": self.kept}


@dataclass(frozen=True, slots=True)
class FarmJob:
    """The folder of a job, on this machine."""

    folder: Path
    rules: PathMapping

    @classmethod
    def open(cls, folder: Path, path_mapping: Path | None = None) -> FarmJob:
        """Open a job.  folder: the job's folder, or its file `shot.json`.  Raises UsageError for a bad path mapping."""
        folder = folder.parent if folder.name == SHOT else folder
        return cls(Path(os.path.abspath(folder)), PathMapping.read(path_mapping))

    def make_motion(self, load: Load, report: Progress | None = None) -> TaskResult:
        """Plan the shot and detect the motion of its driving video, for all other tasks.

        Raises InputError if the job cannot be read, and the errors of `fommctl.animate`.
        """
        shot = FarmShot.read(self.folder / SHOT)
        target = self.folder / MOTION
        if target.exists() and (self.folder / SETTLED).exists():
            return TaskResult("motion", target, len(Motion.load(target)), kept=True)
        here = shot.mapped(self.rules)
        engine = load(here)
        plan, motions = make_motion(replace(here.config, overwrite=True), engine, report)
        save_motions(motions, target)
        # All machines must use the precision and detector chosen here.
        choice = replace(shot.choice, precision=engine.precision)  # type: ignore[arg-type]  # a word of it
        config = replace(plan.config, detector=motions[0].driving.detector)
        squares = tuple(face.inputs.squares for face in plan.faces)
        settled = replace(shot, config=config, choice=choice, squares=squares, film=plan.inputs.film)
        settled.with_paths_of(shot).write(self.folder / SETTLED)
        return TaskResult("motion", target, len(motions[0]), kept=False)

    def render(self, frames: str, load: Load, report: Progress | None = None) -> TaskResult:
        """Render a chunk to the pictures of the result, or to lossless frames for `encode`.

        frames: range such as 51-100. The last chunk extends to the actual last frame, and ends beyond it are allowed.
        Raises UsageError if the range begins after the last frame, InputError if the motion is missing, and the errors
        of `fommctl.animate`.
        """
        asked, shot = parse_frames(frames), self._settled()
        first, last = asked.first or shot.frames.first, asked.last or shot.frames.last
        if asked.first is not None and asked.first > (shot.frames.last or 0):
            raise UsageError(f"--frames {frames} is beyond the end", f"The last frame is number {shot.frames.last}.")
        asked = FrameRange(first, None if last >= shot.frames.last else last)  # type: ignore[operator]  # known numbers
        done = self.folder / DONE / f"{asked}.json"
        target = self.folder / FRAMES / "%08d.png" if shot.encodes else shot.config.result_path
        before = _read(done)
        if before is not None and all((target.parent / name).exists() for name in before.pictures):
            return TaskResult("render", target, len(before.pictures), kept=True)
        engine = load(shot)
        plan, motions = self._planned(shot, engine)
        shown = [one for one in plan.shown(motions[0]) if one.frame.number in asked]
        if not shown:
            return TaskResult("render", target, 0, kept=True)
        exact = FrameRange(shown[0].frame.number, shown[-1].frame.number)
        stats = None
        if shot.encodes:
            with output_errors(target):
                target.parent.mkdir(exist_ok=True)
            remove_stale_files(target.parent)
            stats = render_frames(plan, motions, engine, exact, target.parent, report).stats
            pictures = [
                frame_path(target.parent, number, plan)
                for one in shown
                for number in range(one.position, one.position + len(one.presentations))
            ]
        else:
            plan = replace(plan, config=replace(plan.config, frames=str(exact)))
            count = render(plan, engine, motions, report).frames
            start = picture_number(plan, shown[0])
            pictures = [numbered(target, number) for number in range(start, start + count)]
        found = DoneChunk(tuple(Path(picture.name) for picture in pictures), stats)
        write_text(done, _chunks().dump_json(found).decode())
        return TaskResult("render", target, len(pictures), kept=False)

    def encode(self, load: Load, report: Progress | None = None) -> TaskResult:
        """Encode the frames of all chunks, with the sound.

        Raises UsageError if the chunks already are the result, InputError if frames are missing, and the errors of
        `fommctl.animate`.
        """
        shot = self._settled()
        target, done = shot.config.result_path, self.folder / DONE / "encode.json"
        if not shot.encodes:
            raise UsageError("this job has nothing to encode", "Its render tasks write the result.")
        chunks = [chunk for path in sorted((self.folder / DONE).glob("*-*.json")) if (chunk := _read(path)) is not None]
        count = len({name for chunk in chunks for name in chunk.pictures})
        if target.exists() and done.is_file() and done.read_text() == str(FileFingerprint.of(target).content):
            return TaskResult("encode", target, count, kept=True)
        engine = load(shot)
        plan, motions = self._planned(shot, engine)
        frames = self.folder / FRAMES
        missing = [
            one.frame.number
            for one in plan.shown(motions[0])
            for number in range(one.position, one.position + len(one.presentations))
            if not frame_path(frames, number, plan).exists()
        ]
        stats = [chunk.stats for chunk in chunks if chunk.stats is not None]
        if missing or not stats:
            raise InputError(
                f"{len(missing)} frames are not rendered yet, the first is {missing[0] if missing else 'unknown'}",
                "Run 'fommctl farm render' for all chunks first.",
            )
        result = encode_frames(plan, motions, engine, [RenderedFrames(frames, each) for each in stats], report)
        write_text(done, str(FileFingerprint.of(target).content) if target.exists() else "")
        return TaskResult("encode", target, result.frames, kept=False)

    def _settled(self) -> FarmShot:
        shot = FarmShot.read(self.folder / SHOT)
        if not (self.folder / SETTLED).exists():
            raise InputError(f"{self.folder.name} has no motion yet", "Run 'fommctl farm motion' first.")
        return FarmShot.read(self.folder / SETTLED).with_paths_of(shot).mapped(self.rules)

    def _planned(self, shot: FarmShot, engine: Engine) -> tuple[AnimationPlan, list[Motion]]:
        files = input_files(shot.config)
        motions = [Motion.load(self.folder / MOTION, face) for face in range(1, len(shot.squares) + 1)]
        # Whether files may be overwritten was checked when the job was made.
        config = replace(shot.config, overwrite=True)
        remarks = check_outputs(config)
        plans = [
            plan_animation(config, engine, motion, files, squares, shot.film)
            for motion, squares in zip(motions, shot.squares, strict=True)
        ]
        return together(plans, config, remarks), motions


def _chunks() -> TypeAdapter[DoneChunk]:
    return TypeAdapter(DoneChunk)


def _read(path: Path) -> DoneChunk | None:
    try:
        return _chunks().validate_json(read_regular(path))
    except (OSError, ValueError):
        return None
