"""The plan of a shot, settled before the first frame is rendered: the squares, and where the subject is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fommctl.api.values import Detection
from fommctl.errors import InputError, UsageError
from fommctl.host import Host
from fommctl.media.boxes import Box
from fommctl.media.images import Picture, crop, over_black, read_picture, resize
from fommctl.media.probe import VideoInfo
from fommctl.presets import Framing
from fommctl.stages.framing import (
    ClipSquare,
    Sighting,
    Square,
    ready_detectors,
    square_in_picture,
)
from fommctl.stages.options import AnimateConfig, parse_crop
from fommctl.stages.searches import Searches

log = logging.getLogger(__name__)
LOOSEST = 0.75
"""A source is never framed looser than this part of its preset's width: its face would lose too many pixels."""


@dataclass(frozen=True, slots=True)
class Shot:
    """Everything about the inputs that does not change from frame to frame."""

    picture: Picture
    """The whole source."""
    source_box: Box | None
    """The animated square in the picture; None: the whole picture is the model's input."""
    square: NDArray[np.uint8]
    """(N, N, 3): the source as the model sees it."""
    views: tuple[NDArray[np.uint8], ...]
    """(N, N, 3) each: more pictures of its subject, framed like it."""
    driving_box: Box | None
    size: tuple[int, int]
    """(width, height) of the model's frames."""
    absent: tuple[tuple[Fraction, Fraction], ...]
    """Open intervals of driving time (seconds) without a subject."""
    subject: Detection | None
    """The source's, where it was looked for."""
    sightings: tuple[Sighting, ...]
    """What the search of the driving video saw, if there was one."""
    warnings: tuple[str, ...]
    detection_s: float
    detector: str | None = None
    """Name of the one that looked for subjects."""

    def present(self, moment: Fraction) -> bool:
        """Is the subject in the driving video at this time?"""
        return not any(start < moment < end for start, end in self.absent)


def plan(
    config: AnimateConfig,
    info: VideoInfo,
    framing: Framing | None,
    size: tuple[int, int],
    host: Host,
    searches: Searches | None = None,
) -> Shot:
    """Read the source and settle both squares. searches: those of other jobs, which this one may share.

    Raises InputError where a subject is asked for and none is found.
    """
    picture = read_picture(config.source)
    pixels = on_black(picture)
    source_box, driving_box = parse_crop(config.crop), parse_crop(config.crop_of_driving)
    _check_inside(source_box, config.source.name, pixels.shape[1], pixels.shape[0])
    _check_inside(driving_box, config.driving.name, info.width, info.height)
    began = time.monotonic()
    views = [on_black(read_picture(path)) for path in config.views]
    source, clip, view_squares, detector = _search(config, pixels, views, framing, host, searches or Searches(host))
    seconds = time.monotonic() - began
    source_box = source_box if source is None else source.box
    driving_box = driving_box if clip is None else clip.box
    absent = () if clip is None else clip.absent
    return Shot(
        picture=picture,
        source_box=source_box,
        square=_framed(pixels, source_box, size),
        views=tuple(
            _framed(view, source_box if square is None else square.box, size)
            for view, square in zip(views, view_squares, strict=True)
        ),
        driving_box=driving_box,
        size=size,
        absent=absent,
        subject=None if source is None else source.subject,
        sightings=() if clip is None else clip.sightings,
        warnings=(*_several(config, source, clip), *_missing(config, absent)),
        detection_s=seconds,
        detector=detector,
    )


def _framed(pixels: NDArray[np.uint8], box: Box | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    return resize(pixels if box is None else crop(pixels, box), size)


def _search(
    config: AnimateConfig,
    pixels: NDArray[np.uint8],
    views: Sequence[NDArray[np.uint8]],
    framing: Framing | None,
    host: Host,
    searches: Searches,
) -> tuple[Square | None, ClipSquare | None, list[Square | None], str | None]:
    """The squares that are to be found (in the source, in the driving video, in each further view of the source), and
    the name of the detector that found them."""
    view_squares: list[Square | None] = [None] * len(views)
    wanted = config.crop == "auto", config.crop_of_driving == "auto"
    if config.detector is not None:
        host.find("detector", config.detector)
    if framing is None or not any(wanted):
        return None, None, view_squares, None
    name, subject = config.detector, framing.subject
    if name is None and config.best_frame == "auto":
        # Poses are compared by landmarks where a detector at hand finds them.
        name = next((spec.name for spec in ready_detectors(host, subject) if spec.landmarks), None)
    spec, detector = searches.detector(subject, name)
    log.info("detector: %s", spec.name)
    source = clip = None
    width = framing.width
    if wanted[1]:
        clip = searches.in_clip(
            config.driving,
            (spec, detector),
            framing.width,
            subject=subject,
            fps=config.fps,
            start=config.start_s,
            end=config.end_s,
        )
        width = min(width, max(clip.width, LOOSEST * width))
    if wanted[0]:
        # A clip's square is wider where its subject moves far: the source gets the same room to move in.
        source = square_in_picture(pixels, detector, width, subject=subject, name=config.source.name)
        view_squares = [
            square_in_picture(view, detector, width, subject=subject, name=path.name)
            for path, view in zip(config.views, views, strict=True)
        ]
    return source, clip, view_squares, spec.name


def _check_inside(box: Box | None, name: str, width: int, height: int) -> None:
    if box is not None and (box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height):
        raise UsageError(f"the crop lies outside {name}", f"It is {width}x{height} pixels.")


def _several(config: AnimateConfig, source: Square | None, clip: ClipSquare | None) -> list[str]:
    warnings = []
    if source is not None and source.found > 1:
        warnings.append(f"{source.found} subjects in {config.source.name}: the largest is taken")
    if clip is not None and clip.found > 1:
        warnings.append(f"{clip.found} subjects in {config.driving.name}: the largest is followed")
    return warnings


def _missing(config: AnimateConfig, absent: tuple[tuple[Fraction, Fraction], ...]) -> list[str]:
    if not absent:
        return []
    places = ", ".join(f"{max(0.0, float(start)):.2f}-{float(end):.2f} s" for start, end in absent[:3])
    places += f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    if config.on_missing == "fail":
        raise InputError(f"no subject in {config.driving.name} at {places}", "Use --on-missing hold or skip.")
    done = "the last pose is held" if config.on_missing == "hold" else "the source is shown as it is"
    return [f"no subject in {config.driving.name} at {places}: {done}"]


def on_black(picture: Picture) -> NDArray[np.uint8]:
    """The picture (H, W, 3) laid over black."""
    return over_black(picture.pixels, picture.alpha)
