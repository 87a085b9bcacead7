"""Everything that is decided before the first frame is rendered: options, inputs, squares, sound."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from fommctl.animate.config import SEARCHED, AnimateConfig, FrameRange, MotionMode, parse_crop, parse_frames
from fommctl.animate.engine import Engine, check_views, choose_motion
from fommctl.animate.inputs import AnimationInputs, Squares, find_inputs, open_source
from fommctl.animate.motion import (
    DrivingFrame,
    DrivingFraming,
    Motion,
    TimedFrame,
    as_driven,
    at_rate,
    is_motion_file,
)
from fommctl.animate.transfer import Moment
from fommctl.api.protocols import FlowRenderer
from fommctl.api.schema import Opening
from fommctl.api.specs import BackendSpec
from fommctl.detection.choice import LARGEST
from fommctl.detection.tracking import STILL, travel
from fommctl.errors import InputError, ModelError, UsageError
from fommctl.home import restorer_file
from fommctl.media import sequences
from fommctl.media.colourspaces import FILM_LOG, LINEAR, SRGB, Space, check_view, find_space
from fommctl.media.containers import is_plate_format
from fommctl.media.marking import printable
from fommctl.media.output_paths import is_pattern
from fommctl.media.plates import Plate
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.reader import Clip
from fommctl.media.resampling import content
from fommctl.media.sound import ALL, AUTO, AudioSource, choose_tracks
from fommctl.media.writer import check_output, holds_alpha, holds_audio, holds_more
from fommctl.networks.motion import MotionParts
from fommctl.presets.sections import Preset
from fommctl.provenance.hashing import InputFile
from fommctl.provenance.sidecar import check_sidecar
from fommctl.provenance.signing import check_signing

GENERAL: Mapping[str, Any] = {
    "motion": None,  # relative where the model has it, else absolute
    "adapt_scale": True,
    "best_frame": "first",
    "smooth": False,
    "size": None,  # the size of the frames that the model was trained on
    "source_width": None,  # the framing of the preset
    "driving_width": None,  # the framing of the preset
    "head_motion": 0.25,  # with more, necks tear; with none, a head that moves about stands still
    "expression": 1.0,
    "cuts": True,
    "detail": None,  # where frames are pasted back
}
"""General defaults by option name; presets change them by `animate_params.defaults`."""

AS_PUBLISHED: Mapping[str, Any] = {
    "motion": None,  # relative where the model has it, else absolute
    "adapt_scale": True,  # by the ratio of the keypoints' hulls
    "best_frame": "first",  # the first driving frame with a subject is the reference
    "smooth": False,  # keypoints are used as they are detected
    "size": None,  # the networks run at the size that they were trained at
    "source_width": None,  # the source is framed as the training data was
    "driving_width": None,  # and so is the driving video
    "head_motion": 1.0,  # a fixed square (--driving-crop auto, as published) keeps all of the head's travel
    "expression": 1.0,  # as the driving video shows it
    "cuts": False,  # one reference for all shots
    "detail": False,  # frames are the networks' output; beyond the picture, its border is repeated
}
"""Defaults of --as-published."""


def resolve(config: AnimateConfig, preset: Preset, family: BackendSpec) -> AnimateConfig:
    """Fill in the options that the configuration leaves at None, for a model of this preset and family.

    Idempotent. Raises UsageError for a motion that the family does not have, and for an expression that the model or
    the motion does not support.
    """
    given = preset.pairs().defaults
    preferred = {} if given is None or config.as_published else given.model_dump(exclude_none=True)
    usual = AS_PUBLISHED if config.as_published else GENERAL
    chosen = {name: preferred.get(name, usual[name]) for name in usual if getattr(config, name) is None}
    motion = choose_motion(family, config.motion or chosen["motion"])
    if motion != "relative" and "expression" in chosen:
        chosen["expression"] = 1.0
    if config.expression not in (None, 1.0):
        if not preset.pairs().rules.openings:
            raise UsageError(
                "--expression needs a model with keypoints on mouth and eyelids",
                "Leave it out, or use a model whose preset has animate_params.openings, such as faces-mini.",
            )
        if motion != "relative":
            raise UsageError(f"--expression needs relative motion, not --motion {motion}", "Leave one of them out.")
    return replace(config, **chosen | {"motion": motion})


def openings_of(preset: Preset, config: AnimateConfig) -> tuple[Opening, ...]:
    """Return the preset's openings of mouth and eyelids; none with --as-published without --expression."""
    return () if config.as_published and config.expression in (None, 1.0) else preset.pairs().rules.openings


InputFiles = tuple[tuple[str, InputFile], ...]
"""Inputs with their roles: `source`, `driving`, `view 1`."""


@dataclass(frozen=True, slots=True)
class AnimationPlan:
    """Everything that inputs and options decide about a result; can be pickled."""

    config: AnimateConfig
    """The configuration, with defaults filled in."""
    inputs: AnimationInputs
    sound: tuple[AudioSource, ...]
    """One source per track of the result."""
    files: InputFiles
    """Inputs as they were when they were read, for their hashes."""
    warnings: tuple[str, ...] = ()
    others: tuple[AnimationInputs, ...] = ()
    """Inputs of the other animated faces of the source; picture and driving video are the same."""

    @property
    def faces(self) -> list[AnimationPlan]:
        """One plan per face."""
        return [replace(self, inputs=inputs, others=()) for inputs in (self.inputs, *self.others)]

    @property
    def info(self) -> VideoInfo:
        """The driving video's properties."""
        return self.inputs.driving.info

    @property
    def rate(self) -> Fraction:
        """Frame rate of the result."""
        return self.config.fps or self.info.rate

    @property
    def mode(self) -> MotionMode:
        """The motion mode, one of `BackendSpec.motions`."""
        assert self.config.motion is not None, "`resolve` fills it in"
        return self.config.motion

    @property
    def frames(self) -> FrameRange:
        """The driving frames that the options ask for."""
        return parse_frames(self.config.frames)

    @property
    def length(self) -> Fraction | None:
        """Seconds from --start to --end; None: to the end of the driving video."""
        driving = self.inputs.driving
        return None if driving.end is None else driving.end - driving.start

    def moment(self, frame: DrivingFrame, shot: int, reference: Fraction) -> Moment:
        """Return what the transfer needs to know about a driving frame.  shot: its shot.  reference: time of the shot's
        reference frame."""
        shots = self.inputs.driving.shots
        moved = STILL
        if shots and (path := shots[shot].path) is not None:
            moved = travel(path.at(float(frame.time)), path.at(float(reference)), self.config.head_motion or 0.0)
        return Moment(float(frame.time), frame.present, shot, moved)

    def shown(self, motion: Motion) -> list[TimedFrame]:
        """Return the frames of a motion that the result shows, with their presentations."""
        return [timed for timed in self.timed(motion.frames()) if timed.frame.number in self.frames]

    def timed(self, frames: Iterable[DrivingFrame]) -> Iterator[TimedFrame]:
        """Yield the driving frames that are shown, with their presentations; none after the end of a video as
        source."""
        length = self.length
        if self.inputs.film is not None and length is not None:
            frames = itertools.takewhile(lambda frame: frame.time < length, frames)
        return at_rate(frames, self.pace, length) if self.pace else as_driven(frames)

    @property
    def paste_back(self) -> bool:
        """Whether the animated square is pasted back into the whole source."""
        return self.inputs.source_box is not None and self.config.paste_back is not False

    @property
    def alpha(self) -> bool:
        """Whether the result keeps the transparency of the source."""
        config = self.config
        return (
            self.paste_back
            and self.inputs.picture.has_alpha
            and not self.side_by_side
            and holds_alpha(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
        )

    @property
    def deep(self) -> bool:
        """Whether finished frames are floats: result and source (or format) hold more than 8 bits."""
        config = self.config
        if self.side_by_side or not holds_more(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt):
            return False
        return self.inputs.picture.plate is not None or is_plate_format(config.result_path)

    @property
    def pace(self) -> Fraction | None:
        """Constant frame rate of the result; None: its frames have the driving video's times.

        Numbered pictures made from numbered pictures have a constant rate, so that each has its counterpart.
        """
        counted = self.info.kind == "sequence" and is_pattern(self.config.result_path)
        return self.config.fps or (self.info.rate if counted else None)

    @property
    def detail(self) -> bool:
        """Whether the source's detail is transferred."""
        return self.paste_back if self.config.detail is None else self.config.detail

    @property
    def side_by_side(self) -> bool:
        """Whether source and driving frames are shown beside the result."""
        return self.config.compare or self.config.keypoints


@contextmanager
def open_driving(config: AnimateConfig, engine: Engine) -> Iterator[Clip | Motion]:
    """Open the driving video, or read a motion file given in its place. Raises InputError, ModelError or UsageError."""
    if is_motion_file(config.driving):
        yield load_motion(config, engine)
    elif (own := engine.family.read_motion(config.driving)) is not None:
        _refuse_driving_options(config)
        yield Motion.imported(config.driving, *own, family=engine.family.name, model=engine.model.name)
    else:
        reading = config.driving_reading
        with Clip(config.driving, fps=config.fps, deinterlace=config.deinterlace, reading=reading) as clip:
            yield clip


def load_motion(config: AnimateConfig, engine: Engine) -> Motion:
    """Read a motion file given as driving video. Raises InputError, ModelError or UsageError."""
    face = config.driving_face or LARGEST
    if not face.isdecimal() and face not in (LARGEST, "all"):
        raise UsageError(f"--driving-face {face} of a motion file", "Give the number of one of its faces, from 1.")
    motion = Motion.load(config.driving, int(face) if face.isdecimal() else 1)
    name, family = printable(config.driving.name), engine.family.name
    if motion.family != family:
        raise ModelError(
            f"the motion in {name} is that of a {printable(motion.family)} model, not of a {family} model",
            "Choose the model that it was made with (--model), or give the driving video.",
        )
    _refuse_driving_options(config)
    return motion


def _refuse_driving_options(config: AnimateConfig) -> None:
    """Raise UsageError for options that were fixed when the motion file was made, or that need the driving video's
    pictures."""
    plain = AnimateConfig(source=config.source, driving=config.driving)
    decided = ("start", "end", "timecode", "driving_crop", "driving_width", "cuts", "deinterlace")
    for name in decided:
        if getattr(config, name) != getattr(plain, name):
            raise UsageError(
                f"--{name.replace('_', '-')} cannot be used with a motion file: it was fixed when the file was made",
                "Leave it out (--frames selects a part), or give the driving video.",
            )
    for name in ("compare", "keypoints"):
        if getattr(config, name):
            raise UsageError(f"--{name} needs the driving video's frames, which a motion file does not contain")


def plan_animation(
    config: AnimateConfig,
    engine: Engine,
    driving: Clip | Motion,
    files: InputFiles,
    squares: Squares | None = None,
    filmed: DrivingFraming | None = None,
) -> AnimationPlan:
    """Plan the animation of one face, whose outputs were checked by `check_outputs`. Raises UsageError, InputError,
    ModelError or MissingError.

    driving: from `open_driving`; a clip's start and end are set here.  files: from `input_files`, called before
    `open_driving`.  squares, filmed: see `find_inputs`.
    """
    config = resolve(config, engine.model.preset, engine.family)
    options = engine.options(config.options)
    check_views(engine.family, len(config.views))
    if isinstance(driving, Clip):
        config = config.timed(driving.info)
        driving.start, driving.end = config.start_s, config.end_s
    if config.restore is not None:
        config = replace(config, restore=restorer_file(config.restore))
    framing, size = engine.model.preset.framing, engine.frame_size(config.size)
    with open_source(config) if config.source_video else nullcontext() as film:
        if film is not None and film.info.duration is not None and isinstance(driving, Clip):
            end = driving.start + film.info.duration
            driving.end = end if driving.end is None else min(driving.end, end)
        inputs = find_inputs(config, driving, framing, size, engine.detectors, squares, film, filmed)
    sound, about_sound = choose_sound(config, inputs.driving, must_check=isinstance(driving, Motion))
    context = engine.encoded((inputs.square, *inputs.views), config.size, options)
    if isinstance(driving, Motion):
        about_sound += _about_motion(config, driving, engine, context.motion)
    plan = AnimationPlan(config, inputs, sound, files)
    notes = (
        *_about_driving(plan),
        *about_sound,
        *inputs.warnings,
        *_about_alpha(plan),
        *_about_shape(plan),
        *_about_model(config, engine, context.motion),
    )
    return replace(plan, warnings=notes)


def input_files(config: AnimateConfig) -> InputFiles:
    """Return the inputs by role, fingerprinted before they are read, so that a hash is known to be of what was read;
    empty unless a sidecar or a signature needs hashes."""
    if not (config.sidecar or config.sign):
        return ()
    views = [(f"view {number}", path) for number, path in enumerate(config.views, 1)]
    roles = [("source", config.source), ("driving", config.driving), *views]
    return tuple((role, InputFile.of(path)) for role, path in roles)


def check_motion_out(config: AnimateConfig) -> None:
    """Raise UsageError if the motion file would replace another file, or cannot be created."""
    path = config.motion_out
    if path is None:
        return
    others = (*config.inputs, config.result_path)
    if path.is_dir() or any(os.path.realpath(path) == os.path.realpath(other) for other in others):
        raise UsageError(f"the motion file would replace {path}", "Choose another name for --motion-out.")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of --motion-out does not exist: {path.parent}", "Create it first.")
    if path.exists() and not config.overwrite:
        raise UsageError(f"the motion file already exists: {path}", "Use --overwrite, or another name.")


def choose_sound(
    config: AnimateConfig, driving: DrivingFraming, *, must_check: bool = False
) -> tuple[tuple[AudioSource, ...], list[str]]:
    """Return the driving video's sound, cut to --start and --end, one source per track, and warnings.

    If the video has no sound or the result cannot hold any, --audio auto gives none, and --audio driving raises
    UsageError, or InputError if no track can be decoded.  must_check: the video is only named in a motion file; look
    for it and check that it is unchanged.
    """
    if config.audio == "none":
        return (), []
    holds, info, name = holds_audio(config.result_path), driving.info, printable(driving.info.path.name)
    if not info.audio or not holds:
        if config.audio == "driving":
            why = f"{name} has no sound" if holds else f"{config.result_path.name} cannot hold sound"
            raise UsageError(f"--audio driving, but {why}", "Use --audio auto, or --audio none.")
        if config.audio_track not in (AUTO, ALL):
            why = "has no sound" if holds else f"has sound that {config.result_path.name} cannot hold"
            return (), [f"--audio-track {config.audio_track} is left out: {name} {why}"]
        return (), []
    if must_check:
        found = _same_video(info, config.driving.parent)
        if found is None:
            missing = f"{name} is not where it was, or has changed"
            if config.audio == "driving":
                raise InputError(f"--audio driving, but {missing}", "Put it next to the motion file.")
            return (), [f"the sound is left out: {missing}"]
        info = found
    origin = info.origin + driving.start
    end = None if driving.end is None else info.origin + driving.end
    return choose_tracks(info, origin, end, wanted=config.audio_track, must=config.audio == "driving")


def _same_video(info: VideoInfo, folder: Path) -> VideoInfo | None:
    """Find the video that a motion file names, at its path or beside the motion file; None if it is missing or has
    changed."""
    for place in (info.path, folder / info.path.name):
        try:
            found = probe(place, deinterlace=info.deinterlace) if place.is_file() else None
        except InputError:
            continue
        if found is not None and replace(found, path=info.path) == info:
            return found
    return None


def _about_motion(config: AnimateConfig, motion: Motion, engine: Engine, source: MotionParts) -> list[str]:
    """Return warnings about a motion file. Raises ModelError if this model cannot use it."""
    name = printable(config.driving.name)
    for part, ours in zip(source.names(), source.parts(), strict=True):
        theirs = motion.parts.get(part)
        if part in source.optional:
            continue
        if (ours is None) != (theirs is None) or (
            ours is not None and theirs is not None and ours.shape[1:] != theirs.shape[1:]
        ):
            raise ModelError(
                f"the motion in {name} does not fit the model {engine.model.name}: its {part} differ",
                f"It was made with the model {printable(motion.model)}.",
            )
    if motion.model != engine.model.name:
        return [f"{name} was made with the model {printable(motion.model)}: keypoints of two models rarely agree"]
    return []


def check_outputs(config: AnimateConfig) -> tuple[str, ...]:
    """Check that all outputs can be written, and return warnings. Raises UsageError or OutputError if one cannot, and
    MissingError if a package that it needs is not installed."""
    inputs, numbers = config.inputs, _numbers_to_write(config)
    check_output(
        config.result_path,
        config.overwrite,
        inputs=inputs,
        codec=config.codec,
        crf=config.crf,
        pix_fmt=config.pix_fmt,
        numbers=numbers,
    )
    for path in (config.matte_path, config.uv):
        if path is not None:
            check_output(path, config.overwrite, inputs=inputs, numbers=numbers)
    results = [path for path in (config.result_path, config.matte_path, config.uv) if path is not None]
    if len({os.path.realpath(path) for path in results}) < len(results):
        raise UsageError("--matte, --uv and the result have the same name", "Give each a pattern of its own.")
    if is_plate_format(config.result_path) and (config.compare or config.keypoints):
        raise UsageError(
            f"--compare and --keypoints cannot be written as {config.result_path.suffix}",
            "Use a movie or a pattern for PNG pictures.",
        )
    if config.source_video and is_plate_format(config.result_path):
        raise UsageError(
            f"--source-video cannot be written as {config.result_path.suffix}",
            "Use a movie or a pattern for PNG pictures.",
        )
    check_spaces(config)
    check_motion_out(config)
    if config.sidecar:
        check_sidecar(config.result_path, (config.source, config.driving), overwrite=config.overwrite)
    return check_signing(config.result_path, config.sign, config.sign_key)


def _numbers_to_write(config: AnimateConfig) -> Container[object] | None:
    """Return the numbers of the pictures that --frames writes, beside which others may exist; None: the whole
    pattern."""
    # With --fps, the result's numbers are not the driving frames' numbers.
    if config.frames is None or config.fps is not None:
        return None
    wanted, shift = parse_frames(config.frames), 0
    if is_motion_file(config.driving):
        driving = Motion.load(config.driving).driving.info.first_number
    else:
        driving = sequences.first_number(config.driving)
    if driving is None:
        shift = config.first_number - 1
    elif config.start_number is not None:
        shift = config.start_number - driving
    return FrameRange(*(None if end is None else end + shift for end in (wanted.first, wanted.last)))


def check_spaces(config: AnimateConfig) -> None:
    """Check the colour spaces and the view. Raises UsageError for one that the OCIO configuration does not have,
    InputError for a configuration that cannot be read, and MissingError without OpenImageIO."""
    for name, flag in (
        (config.source_space, "--source-space"),
        (config.driving_space, "--driving-space"),
        (config.output_space, "--output-space"),
    ):
        if name is not None:
            find_space(name, config.ocio, flag)
    if config.display_view is not None:
        check_view(config.display_view, config.ocio)


def result_space(config: AnimateConfig, plate: Plate) -> Space:
    """Return the colour space of the result: --output-space, else the source's in the same format, else the format's
    default."""
    if config.output_space is not None:
        return find_space(config.output_space, config.ocio, "--output-space")
    suffix = config.result_path.suffix.lower()
    usual = {".exr": LINEAR, ".dpx": FILM_LOG}.get(suffix, SRGB)
    formats = {".exr": "openexr", ".dpx": "dpx", ".tif": "tiff", ".tiff": "tiff"}
    same = plate.format == formats.get(suffix, "")
    return plate.display.space if same else Space(usual)


def _about_driving(plan: AnimationPlan) -> list[str]:
    """Return a warning for a driving video of one picture: the arguments may have been swapped."""
    config = plan.config
    if plan.info.frames != 1:
        return []
    source = probe(config.source)
    swapped = f"; {config.source.name} is a film: is it the driving video? (fommctl animate SOURCE DRIVING)"
    film = source.kind == "video" and source.frames != 1
    return [f"the driving video {config.driving.name} is one picture: nothing moves" + (swapped if film else "")]


def _about_model(config: AnimateConfig, engine: Engine, source: MotionParts) -> list[str]:
    """Return warnings about options that this model cannot fully honour."""
    notes, preset, (width, _) = [], engine.model.preset, engine.frame_size()
    if config.crop == "auto" and preset.framing is None and preset.dataset is None:
        notes.append(
            "what this model was trained on is not known: nothing is cropped (a --preset for faces would crop)"
        )
    if config.size not in (None, width):
        notes.append(f"frames of {config.size} pixels: trained at {width}, the model's motion still sees {width}")
    if config.detail and not isinstance(engine.renderer(config.size), FlowRenderer):
        notes.append("this model has no flow: it cannot give the source's detail back")
    if config.keypoints and not source.points().shape[1]:
        notes.append("this model has no keypoints: none are drawn")
    return notes


def _about_shape(plan: AnimationPlan) -> list[str]:
    """Return warnings about pictures that are squeezed into the model's aspect ratio, and about given squares that
    reach beyond their pictures."""
    config, info, inputs = plan.config, plan.info, plan.inputs
    height, width = inputs.picture.pixels.shape[:2]
    notes = []
    for name, size, whole in (
        (config.source.name, (width, height), inputs.source_box is None),
        (config.driving.name, (info.width, info.height), inputs.driving.box is None and not inputs.driving.shots),
    ):
        if whole and content(size, inputs.size) is not None:
            notes.append(
                f"{name} is {size[0]}x{size[1]} and is squeezed to {inputs.size[0]}x{inputs.size[1]}: see --crop"
            )
    driving_box = parse_crop(config.crop_of_driving, SEARCHED)
    for name, size, box, option in (
        (config.source.name, (width, height), parse_crop(config.crop), "--crop"),
        (config.driving.name, (info.width, info.height), driving_box, "--driving-crop"),
    ):
        if box is not None and box.clipped(*size) != box:
            notes.append(f"{option} reaches beyond {name} ({size[0]}x{size[1]}): its border is repeated there")
    return notes


def _about_alpha(plan: AnimationPlan) -> list[str]:
    """Return a warning if the source's transparency is lost."""
    config, alpha = plan.config, plan.inputs.picture.alpha
    if alpha is None or alpha.min(initial=255) == 255 or plan.alpha:
        return []
    held = holds_alpha(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
    why = "" if held else f": {config.result_path.name} cannot hold it; .mov, .webm, .mkv and PNG pictures can"
    return [f"the transparency of {config.source.name} is laid over black{why}"]
