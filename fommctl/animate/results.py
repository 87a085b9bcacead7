"""Destinations of finished frames: the result with the plates beside it, and frames that wait on the disk to be
encoded."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fommctl.animate.compose import Planes
from fommctl.animate.motion import DrivingFrame, Presentation, TimedFrame
from fommctl.animate.plan import AnimationPlan
from fommctl.animate.rendering import RenderSession, first_timecode
from fommctl.files import atomic_write
from fommctl.media.images import read_picture
from fommctl.media.images_out import write_png
from fommctl.media.movie import Frame, output_errors
from fommctl.media.plates_out import PlateFormat
from fommctl.media.writer import Writer


@dataclass(slots=True)
class Results:
    """The result and the plates beside it, written frame by frame; a context manager, as `Writer` is."""

    writer: Writer
    """The writer of the result."""
    matte: Writer | None
    uv: Writer | None
    _embed: bool
    """Whether the matte is a layer of the result."""
    _offset: Fraction
    """Seconds from --start to the first frame."""

    def write(self, frame: Frame, presentation: Presentation, number: int, planes: Planes) -> None:
        """Add a frame; its number is not needed, for they come in order."""
        time, duration = presentation.time - self._offset, presentation.duration
        if self._embed:
            assert planes.matte is not None
            frame = np.concatenate((frame, planes.matte), axis=2)
        self.writer.write(frame, time, duration)
        if self.matte is not None and planes.matte is not None:
            self.matte.write(planes.matte, time, duration)
        if self.uv is not None and planes.uv is not None:
            self.uv.write(planes.uv, time, duration)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Open all of them: each is complete before the first gets its name, and none keeps it where another cannot
        have its."""
        with ExitStack() as undo:
            for writer in self._writers:
                undo.callback(writer.abort)
            if error is not None:
                return
            for writer in self._writers:
                writer.finish()
            for writer in self._writers:
                writer.publish(keep=len(self._writers) > 1)
            undo.pop_all()
        for writer in self._writers:
            writer.release()

    @property
    def _writers(self) -> list[Writer]:
        return [writer for writer in (self.writer, self.matte, self.uv) if writer is not None]


def open_results(session: RenderSession, first: TimedFrame[DrivingFrame]) -> Results:
    """Open the result, whose time 0 and sound begin with its first frame; not entered yet.

    A result of all frames begins with --start, wherever its first frame is.
    """
    plan = session.plan
    config, offset = plan.config, Fraction(0) if plan.config.frames is None else first.presentations[0].time
    sound = [replace(source, origin=source.origin + offset) for source in plan.sound]
    numbers = {"first_number": picture_number(plan, first), "part": config.frames is not None}
    writer = Writer(
        config.result_path,
        audio=sound,
        timecode=first_timecode(plan, offset),
        plates=session.plates(offset),
        **numbers,  # type: ignore[arg-type]  # an int and a bool
        **session.writing(),
    )
    matte = None if config.matte_path is None else _beside(session, config.matte_path, offset, ("A",), numbers)
    uv = None if config.uv is None else _beside(session, config.uv, offset, ("R", "G"), numbers)
    return Results(writer, matte, uv, config.matte == "embed", offset)


def _beside(
    session: RenderSession, path: Path, offset: Fraction, channels: tuple[str, ...], numbers: dict[str, Any]
) -> Writer:
    """Return the writer of a plate beside the result."""
    plan, config = session.plan, session.plan.config
    picture = plan.inputs.picture
    height, width = picture.pixels.shape[:2]
    as_map = len(channels) == 2
    window, size = (0, 0), (width, height)
    if plan.deep and picture.plate is not None and not as_map:
        window, size = picture.plate.window, session.composer.canvas
    form = PlateFormat(
        "float" if as_map else config.exr_type or "half",
        config.exr_compression,
        attributes=session.attributes(offset),
        window=window,
        display=(width, height),
        channels=channels,
    )
    return Writer(
        path,
        width=size[0],
        height=size[1],
        rate=plan.rate,
        deep=True,
        plates=form,
        pix_fmt="gbrpf32le" if as_map and path.suffix.lower() != ".exr" else None,
        overwrite=config.overwrite,
        threads=config.encoder_threads,
        mark=session.writing()["mark"],
        **numbers,
    )


def picture_number(plan: AnimationPlan, first: TimedFrame[DrivingFrame]) -> int:
    """Return the number of the first picture of the result, or of a part of it: that of its driving frame where those
    are numbered pictures, else counted from --start-number."""
    config, numbered = plan.config, plan.info.first_number is not None
    if numbered and config.start_number is None:
        return first.frame.number
    # Driving frames count from 1 at --start; at another rate, the moments of the result do.
    at_other_rate = config.fps is not None or numbered
    return config.first_number + (first.position if at_other_rate else first.frame.number - 1)


def frame_path(folder: Path, number: int, plan: AnimationPlan) -> Path:
    """Return the path to which `save_frame` writes a frame.  number: in the result, from 0."""
    whole = plan.deep or plan.config.matte is not None or plan.config.uv is not None
    return folder / f"{number + 1:08d}{'.npz' if whole else '.png'}"


def save_frame(path: Path, frame: Frame, planes: Planes) -> None:
    """Write a frame as it is, in the place of what is there: as PNG, or with its planes. Raises OutputError."""
    if path.suffix == ".png":
        write_png(path, frame)
        return
    parts = {name: part for name, part in (("matte", planes.matte), ("uv", planes.uv)) if part is not None}
    with output_errors(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, frame=frame, **parts)  # type: ignore[arg-type]  # its last argument is no array


def load_frame(path: Path, *, alpha: bool) -> tuple[Frame, Planes]:
    """Read what `save_frame` has written.  alpha: does the result have four channels?"""
    if path.suffix == ".png":
        picture = read_picture(path)
        if not alpha:
            return picture.pixels, Planes()
        opaque = np.full(picture.pixels.shape[:2], 255, np.uint8)
        return np.dstack((picture.pixels, opaque if picture.alpha is None else picture.alpha)), Planes()
    with np.load(path, allow_pickle=False) as parts:
        return parts["frame"], Planes(parts.get("matte"), parts.get("uv"))
