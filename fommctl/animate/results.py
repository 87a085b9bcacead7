"""Writing finished frames: to the result and the plates beside it, or to files that are encoded later."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fommctl import __version__
from fommctl.animate.compose import Planes
from fommctl.animate.motion import Presentation, TimedFrame
from fommctl.animate.plan import AnimationPlan, result_space
from fommctl.animate.plates import associated, plate_of
from fommctl.animate.rendering import RenderSession
from fommctl.files import atomic_write
from fommctl.media import timecode
from fommctl.media.colour import ColourTags
from fommctl.media.colourspaces import Space, tags_of
from fommctl.media.containers import is_plate_format
from fommctl.media.images import read_picture
from fommctl.media.images_out import write_png
from fommctl.media.marking import Mark
from fommctl.media.movie import Frame, output_errors
from fommctl.media.plates import Attributes
from fommctl.media.plates_out import PlateFormat
from fommctl.media.writer import Writer
from fommctl.provenance.hashing import model_identity
from fommctl.provenance.signing import Signature


@dataclass(slots=True)
class Results:
    """The result and the plates beside it, written frame by frame; a context manager like `Writer`."""

    writer: Writer
    """Writer of the result."""
    matte: Writer | None
    uv: Writer | None
    signature: Signature | None
    """Signature of the result, with --sign."""
    _embed: bool
    """Whether the matte is a layer of the result."""
    _offset: Fraction
    """Seconds from --start to the first frame."""

    def write(self, frame: Frame, presentation: Presentation, number: int, planes: Planes) -> None:
        """Add the next frame. The number is ignored: frames arrive in order."""
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
        """Complete all files before the first is published under its name; if one cannot be published, none is."""
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


def open_results(session: RenderSession, first: TimedFrame) -> Results:
    """Return the writers of the result and its plates, to be entered by the caller.

    first: first frame of the result. With --frames, time 0 and the sound begin with this frame, otherwise with --start.
    """
    plan, composer, config, info = session.plan, session.composer, session.plan.config, session.plan.info
    model, (width, height) = session.engine.model, composer.canvas
    offset = Fraction(0) if config.frames is None else first.presentations[0].time
    signature = _signature(session)
    of_all: dict[str, Any] = {
        "rate": plan.rate,
        "overwrite": config.overwrite,
        "threads": config.encoder_threads,
        "mark": Mark(__version__, model.name, model.preset.name),
        "first_number": picture_number(plan, first),
        "part": config.frames is not None,
    }
    writer = Writer(
        config.result_path,
        width=width,
        height=height,
        alpha=composer.alpha,
        deep=plan.deep,
        audio=[replace(source, origin=source.origin + offset) for source in plan.sound],
        plates=_plates(session, offset),
        timecode=_first_timecode(plan, offset),
        reel=_reel(plan),
        # At a constant rate, times are multiples of the period.
        time_base=Fraction(1, plan.rate.numerator) if plan.pace or info.tick is None else info.tick,
        colour=_colour(plan),
        codec=config.codec,
        crf=config.crf,
        pix_fmt=config.pix_fmt or composer.pix_fmt,
        complete=signature,
        **of_all,
    )
    matte = None if config.matte_path is None else _beside(session, config.matte_path, offset, ("A",), of_all)
    uv = None if config.uv is None else _beside(session, config.uv, offset, ("R", "G"), of_all)
    return Results(writer, matte, uv, signature, config.matte == "embed", offset)


def _beside(
    session: RenderSession, path: Path, offset: Fraction, channels: tuple[str, ...], of_all: dict[str, Any]
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
        attributes=_attributes(plan, offset),
        window=window,
        display=(width, height),
        channels=channels,
    )
    return Writer(
        path,
        width=size[0],
        height=size[1],
        deep=True,
        plates=form,
        pix_fmt="gbrpf32le" if as_map and path.suffix.lower() != ".exr" else None,
        **of_all,
    )


def _plates(session: RenderSession, offset: Fraction) -> PlateFormat | None:
    """Return the format of an OpenEXR, DPX or TIFF result, None for others.  offset: seconds from --start to its first
    frame."""
    plan, config = session.plan, session.plan.config
    if not is_plate_format(config.result_path):
        return None
    plate = plate_of(plan.inputs)
    space = result_space(config, plate)
    names = (*"RGBA"[: 4 if session.composer.alpha else 3], *(("matte.A",) if config.matte == "embed" else ()))
    kind = config.exr_type or ("float" if plate.depth in ("float", "double") else "half")
    height, width = plate.values.shape[:2]
    return PlateFormat(
        kind,
        config.exr_compression,
        space,
        _attributes(plan, offset, space),
        associated(config.result_path, plate),
        plate.window if plan.paste_back else (0, 0),
        (width, height) if plan.paste_back else None,
        names,
    )


def _attributes(plan: AnimationPlan, offset: Fraction, space: Space | None = None) -> Attributes:
    """Return the attributes of plates.  offset: seconds from --start to the first frame.  space: their colour space."""
    plate = plan.inputs.picture.plate
    own = Attributes() if plate is None else plate.attributes
    colours = own.chromaticities if plate is not None and space == plate.display.space else None
    return Attributes(_first_timecode(plan, offset), plan.rate, own.aspect, colours, _reel(plan))


def _reel(plan: AnimationPlan) -> str | None:
    """Return the reel of the source, else of the driving video, else of the configuration."""
    plate = plan.inputs.picture.plate
    return (None if plate is None else plate.attributes.reel) or plan.info.reel or plan.config.reel


def _first_timecode(plan: AnimationPlan, offset: Fraction) -> str | None:
    """Return the driving video's timecode at the result's first frame, counted at the result's rate.

    offset: seconds from --start to that frame.
    """
    info = plan.info
    first = info.timecode or plan.config.driving_timecode
    if first is None:
        return None
    skipped = math.ceil(plan.inputs.driving.start * info.coded_rate) + round(offset * info.coded_rate)
    return timecode.shifted(first, skipped, info.coded_rate, plan.rate)


def _colour(plan: AnimationPlan) -> ColourTags | None:
    """Return the colour tags of the result: from its colour space, else from the driving video."""
    if plan.deep and (tags := tags_of(result_space(plan.config, plate_of(plan.inputs)))) is not None:
        return tags
    # HDR and wide-gamut clips are converted to bt709 when read: their tags would be wrong.
    return None if plan.info.hdr or plan.info.colour.wide_gamut else plan.info.colour


def _signature(session: RenderSession) -> Signature | None:
    """Return the signature to add to the result; None without --sign."""
    config, model = session.plan.config, session.engine.model
    if config.sign is None or config.sign_key is None:
        return None
    identity = model_identity(model)
    named = {"name": identity["name"], "sha256": identity["sha256"], "preset": model.preset.name}
    return Signature(config.result_path, config.sign, config.sign_key, session.plan.files, named)


def picture_number(plan: AnimationPlan, first: TimedFrame) -> int:
    """Return the number of the result's first picture, also with --frames: the driving picture's number if those are
    numbered, else counted from --start-number."""
    config, numbered = plan.config, plan.info.first_number is not None
    if numbered and config.start_number is None:
        return first.frame.number
    # Driving frames count from 1 at --start; with --fps, count the result's frames instead.
    at_other_rate = config.fps is not None or numbered
    return config.first_number + (first.position if at_other_rate else first.frame.number - 1)


def frame_path(folder: Path, number: int, plan: AnimationPlan) -> Path:
    """Return the path for `save_frame`.  number: number of the frame in the result, from 0."""
    whole = plan.deep or plan.config.matte is not None or plan.config.uv is not None
    return folder / f"{number + 1:08d}{'.npz' if whole else '.png'}"


def save_frame(path: Path, frame: Frame, planes: Planes) -> None:
    """Write a frame without loss, as PNG, or as .npz with its planes, replacing an existing file. Raises
    OutputError."""
    if path.suffix == ".png":
        write_png(path, frame)
        return
    parts = {name: part for name, part in (("matte", planes.matte), ("uv", planes.uv)) if part is not None}
    with output_errors(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, frame=frame, **parts)  # type: ignore[arg-type]  # mypy takes the keywords for `allow_pickle`


def load_frame(path: Path, *, alpha: bool) -> tuple[Frame, Planes]:
    """Read a frame written by `save_frame`.  alpha: whether the result has four channels."""
    if path.suffix == ".png":
        picture = read_picture(path)
        if not alpha:
            return picture.pixels, Planes()
        opaque = np.full(picture.pixels.shape[:2], 255, np.uint8)
        return np.dstack((picture.pixels, opaque if picture.alpha is None else picture.alpha)), Planes()
    with np.load(path, allow_pickle=False) as parts:
        return parts["frame"], Planes(parts.get("matte"), parts.get("uv"))
