"""Preparing a shot: everything that is settled before its first frame is rendered."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from fommctl import __version__
from fommctl.animate.compose import Composer, Look
from fommctl.animate.config import SEARCHED, AnimateConfig, MotionMode, parse_crop
from fommctl.animate.defaults import resolve
from fommctl.animate.engine import Engine
from fommctl.animate.motion import Choreography, Moment
from fommctl.animate.reference import Reference, find_references
from fommctl.animate.rendering import Rendering
from fommctl.animate.shot import Shot, plan
from fommctl.animate.sound import choose_sound
from fommctl.api.protocols import FlowRenderer, Renderer, SourceContext
from fommctl.api.specs import StageEvent
from fommctl.detection.following import STILL, travel
from fommctl.errors import MissingError
from fommctl.media import timecode
from fommctl.media.marking import Mark
from fommctl.media.probe import VideoInfo, probe
from fommctl.media.resampling import content
from fommctl.media.writer import AudioSource, Writer, check_output, holds_alpha
from fommctl.models.home import restorer_file
from fommctl.networks.grids import HostPixels
from fommctl.networks.transfer import Motion
from fommctl.provenance.sidecar import check_sidecar
from fommctl.provenance.signing import Signature, check_signing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """What the inputs and the options decide about a result; another process can be handed it."""

    config: AnimateConfig
    """With nothing left open."""
    info: VideoInfo
    """Of the driving video."""
    sound: tuple[AudioSource, ...]
    """One source a track of the result."""
    shot: Shot
    mode: MotionMode
    references: tuple[Reference, ...]
    """One for each shot of the driving video."""
    warnings: tuple[str, ...]

    @property
    def rate(self) -> Fraction:
        """Frames a second of the result."""
        return self.config.fps or self.info.rate

    def moment(self, time: Fraction) -> Moment:
        """What is known of the driving frame at a time, seconds since --start."""
        shot = self.shot
        number = shot.number_at(time)
        moved = STILL
        if shot.shots and (path := shot.shots[number].path) is not None:
            first = path.at(float(self.references[number].time))
            moved = travel(path.at(float(time)), first, self.config.head_motion or 0.0)
        return Moment(float(time), shot.present(time), number, moved)

    @property
    def paste_back(self) -> bool:
        """Does the animated square return into the whole source?"""
        return self.shot.source_box is not None and self.config.paste_back is not False

    @property
    def detail(self) -> bool:
        """Is the source's detail wanted?"""
        return self.paste_back if self.config.detail is None else self.config.detail


@dataclass(frozen=True, slots=True)
class Prepared:
    """A settled shot on an engine, ready to render."""

    settled: Settled
    engine: Engine
    renderer: Renderer
    context: SourceContext
    choreography: Choreography
    composer: Composer
    signature: Signature | None
    """What signs the result, where that is wanted."""

    def rendering(self) -> Rendering:
        """The model's loop over this shot."""
        batch_size = self.settled.config.batch_size
        return Rendering(
            self.renderer,
            self.context,
            self.choreography,
            self.settled.moment,
            batch_size,
            with_flow=self.composer.wants_flow,
        )

    def writer(self) -> Writer:
        """Of the result, not opened yet."""
        return Writer(self.settled.config.result_path, complete=self.signature, **self.writing())

    def writing(self) -> dict[str, Any]:
        """What `Writer` is told of the result beside its path."""
        settled, model = self.settled, self.engine.model
        config, info = settled.config, settled.info
        width, height = self.composer.canvas
        return {
            "width": width,
            "height": height,
            "rate": settled.rate,
            "alpha": self.composer.alpha,
            "audio": settled.sound,
            # Frames of HDR and wide-gamut clips arrive as bt709: their own tags would be wrong.
            "colour": None if info.hdr or info.colour.wide_gamut else info.colour,
            "codec": config.codec,
            "crf": config.crf,
            "pix_fmt": config.pix_fmt,
            "mark": Mark(__version__, model.name, model.preset.name),
            "timecode": _timecode(config, info),
            "overwrite": config.overwrite,
            "threads": config.encoder_threads,
        }


def settle(config: AnimateConfig, engine: Engine) -> Settled:
    """Look at the inputs and decide. Raises UsageError, InputError, OutputError or MissingError."""
    remarks = check_outputs(config)
    config = resolve(config, engine.model.preset, engine.family)
    mode = engine.motion(config.motion)
    engine.check_views(len(config.views))
    info = probe(config.driving, fps=config.fps, deinterlace=config.deinterlace)
    config = config.timed(info)
    if config.restore is not None:
        config = replace(config, restore=restorer_file(config.restore))
    sound, about_sound = choose_sound(config, info)
    shot = plan(config, info, engine.model.preset.framing, engine.frame_size(config.size), engine.host, engine.searches)
    context = engine.encoded((shot.square, *shot.views), config.size)
    notes = (
        *remarks,
        *_about_driving(config, info),
        *about_sound,
        *shot.warnings,
        *_about_alpha(config, shot),
        *_about_shape(config, info, shot),
        *_about_model(config, engine, context.motion),
    )
    for note in notes:
        log.warning(note)
    references = find_references(config, shot, info, engine.renderer(config.size), context)
    return Settled(config, info, sound, shot, mode, references, notes)


def prepare(settled: Settled, engine: Engine, event: StageEvent, first_frame: int = 0) -> Prepared:
    """Bring a settled shot onto an engine. event: what the frame filters of plugins are told of the run.  first_frame:
    number of the first finished frame that is to come."""
    config, shot = settled.config, settled.shot
    filters, square_filters = engine.host.frame_filters(event), engine.host.square_filters(event)
    if config.restore is not None and not square_filters:
        raise MissingError("no plugin is loaded that restores", "Leave out --restore, or name it in FOMMCTL_PLUGINS.")
    renderer = engine.renderer(config.size)
    context = engine.encoded((shot.square, *shot.views), config.size)
    choreography = Choreography(
        context.motion,
        [reference.motion.to(renderer.device) for reference in settled.references],
        mode=settled.mode,
        adapt_scale=bool(config.adapt_scale),
        smooth=bool(config.smooth),
        room=shot.room,
        ease=not config.as_published,
    )
    reconstruction = HostPixels(renderer.render(context, context.motion)).array()[0]
    look = _look(settled, renderer)
    composer = Composer(
        config, shot, look, context.motion, reconstruction, filters, square_filters, first_frame=first_frame
    )
    signature = None if config.sign is None else Signature(config, engine)
    return Prepared(settled, engine, renderer, context, choreography, composer, signature)


def about(config: AnimateConfig, engine: Engine) -> StageEvent:
    """What listeners and frame filters are told when the run begins."""
    details = {"config": config.to_json(), "model": engine.model.name, "output": str(config.result_path)}
    return StageEvent(stage="animate", details=details)


def check_outputs(config: AnimateConfig) -> tuple[str, ...]:
    """What should be said about how the result will be written. Raises UsageError or OutputError where it could not be,
    and MissingError where the package that signs is absent."""
    check_output(
        config.result_path,
        config.overwrite,
        inputs=(config.source, config.driving, *config.views),
        codec=config.codec,
        crf=config.crf,
        pix_fmt=config.pix_fmt,
    )
    check_sidecar(config)
    return check_signing(config)


def _about_driving(config: AnimateConfig, info: VideoInfo) -> list[str]:
    """A remark where nothing can move; the arguments may have been swapped."""
    if info.frames != 1:
        return []
    source = probe(config.source)
    swapped = f"; {config.source.name} is a film: is it the driving video? (fommctl animate SOURCE DRIVING)"
    film = source.kind == "video" and source.frames != 1
    return [f"the driving video {config.driving.name} is one picture: nothing moves" + (swapped if film else "")]


def _about_model(config: AnimateConfig, engine: Engine, source: Motion) -> list[str]:
    """What the user should know of how the model is used."""
    notes, preset, (width, _) = [], engine.model.preset, engine.frame_size()
    if config.crop == "auto" and preset.framing is None and preset.dataset is None:
        notes.append(
            "what this model was trained on is not known: nothing is cropped (a --preset for faces would crop)"
        )
    if config.size not in (None, width):
        notes.append(f"frames of {config.size} pixels: trained at {width}, the model's motion still sees {width}")
    if config.detail and not isinstance(engine.renderer(config.size), FlowRenderer):
        notes.append("this model has no flow: it cannot give the source's detail back")
    if config.keypoints and not source.keypoints.shape[1]:
        notes.append("this model has no keypoints: none are drawn")
    return notes


def _look(settled: Settled, renderer: Renderer) -> Look:
    config, shot = settled.config, settled.shot
    # Keypoints are drawn on source and driving frame: both have to be in the picture.
    side_by_side = config.compare or config.keypoints
    # A square of fewer pixels than the model's frame has nothing more to give.
    finer = shot.source_width > shot.size[0]
    detail = settled.detail and finer and isinstance(renderer, FlowRenderer)
    alpha = _keeps_alpha(config, shot)
    return Look(settled.paste_back, alpha, side_by_side, config.keypoints, detail)


def _keeps_alpha(config: AnimateConfig, shot: Shot) -> bool:
    return (
        shot.source_box is not None
        and config.paste_back is not False
        and shot.picture.alpha is not None
        and not config.compare
        and not config.keypoints
        and holds_alpha(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
    )


def _about_shape(config: AnimateConfig, info: VideoInfo, shot: Shot) -> list[str]:
    """Remarks where a picture is squeezed into the model's shape, or a square given by hand leaves its picture."""
    height, width = shot.picture.pixels.shape[:2]
    notes = []
    for name, size, whole in (
        (config.source.name, (width, height), shot.source_box is None),
        (config.driving.name, (info.width, info.height), shot.driving_box is None and not shot.shots),
    ):
        if whole and content(size, shot.size) is not None:
            notes.append(f"{name} is {size[0]}x{size[1]} and is squeezed to {shot.size[0]}x{shot.size[1]}: see --crop")
    driving_box = parse_crop(config.crop_of_driving, SEARCHED)
    for name, size, box, option in (
        (config.source.name, (width, height), parse_crop(config.crop), "--crop"),
        (config.driving.name, (info.width, info.height), driving_box, "--driving-crop"),
    ):
        if box is not None and box.clipped(*size) != box:
            notes.append(f"{option} reaches beyond {name} ({size[0]}x{size[1]}): its border is repeated there")
    return notes


def _about_alpha(config: AnimateConfig, shot: Shot) -> list[str]:
    """A remark where the source's transparency is lost."""
    alpha = shot.picture.alpha
    if alpha is None or alpha.min(initial=255) == 255 or _keeps_alpha(config, shot):
        return []
    held = holds_alpha(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
    why = "" if held else f": {config.result_path.name} cannot hold it; .mov, .webm, .mkv and PNG pictures can"
    return [f"the transparency of {config.source.name} is laid over black{why}"]


def _timecode(config: AnimateConfig, info: VideoInfo) -> str | None:
    """The driving video's timecode at the first frame that is used, counted at the result's rate."""
    if info.timecode is None:
        return None
    skipped = math.ceil(config.start_s * info.coded_rate)
    return timecode.shifted(info.timecode, skipped, info.coded_rate, config.fps or info.rate)
