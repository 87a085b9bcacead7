"""The plan of a shot, settled before the first frame is rendered: the squares, and where the subject is missing."""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fommctl.animate.config import SEARCHED, AnimateConfig, parse_crop
from fommctl.animate.source_square import Room, excursions, room_in, source_square
from fommctl.api.values import Detection
from fommctl.detection.cache import Searches
from fommctl.detection.framing import ClipSquare, Square, ready_detectors, square_in_picture
from fommctl.detection.shots import DrivingCrop, driving_clip
from fommctl.errors import InputError, UsageError
from fommctl.host import Host
from fommctl.media.boxes import Box
from fommctl.media.images import Picture, crop, over_black, read_picture, resize
from fommctl.media.probe import VideoInfo
from fommctl.presets.preset import Framing

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
    mirrored: bool
    """Is the picture extended by its reflection, where the square reaches beyond it? Else its border is repeated."""
    square: NDArray[np.uint8]
    """(N, N, 3): the source as the model sees it."""
    views: tuple[NDArray[np.uint8], ...]
    """(N, N, 3) each: more pictures of its subject, framed like it."""
    driving_box: Box | None
    """The square of the driving video, where it was given by hand; None: see `shots`, or the whole picture."""
    driving_size: tuple[int, int]
    """(width, height) of the driving video."""
    shots: tuple[ClipSquare, ...]
    """The shots of the driving video with their squares, where they were looked for; in the order of time."""
    size: tuple[int, int]
    """(width, height) of the model's frames."""
    subject: Detection | None
    """The source's, where it was looked for."""
    room: Room | None
    """How far the source's subject may move before it leaves its square, where that is known."""
    warnings: tuple[str, ...]
    detection_s: float
    detector: str | None = None
    """Name of the one that looked for subjects."""

    @property
    def fixed_driving_box(self) -> Box | None:
        """The one square of the driving video; None where it follows, where shots differ, and for whole pictures."""
        if len(self.shots) == 1 and self.shots[0].path is None:
            return self.shots[0].box
        return self.driving_box

    @property
    def starts(self) -> tuple[Fraction, ...]:
        """Times (seconds) at which the shots of the driving video begin, -1 for the first; one at least."""
        return tuple(shot.start for shot in self.shots) or (Fraction(-1),)

    def number_at(self, moment: Fraction) -> int:
        """Which shot shows this moment of the driving video."""
        return max(0, bisect.bisect_right(self.starts, moment) - 1)

    @property
    def source_width(self) -> int:
        """Pixels of the source from the left to the right of what is animated."""
        return self.picture.pixels.shape[1] if self.source_box is None else round(self.source_box.width)

    def present(self, moment: Fraction) -> bool:
        """Is the subject in the driving video at this time?"""
        absent = self.shots[self.number_at(moment)].absent if self.shots else ()
        return not any(start < moment < end for start, end in absent)


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
    source_box, driving_box = parse_crop(config.crop), parse_crop(config.crop_of_driving, SEARCHED)
    _check_inside(source_box, config.source.name, pixels.shape[1], pixels.shape[0])
    _check_inside(driving_box, config.driving.name, info.width, info.height)
    began = time.monotonic()
    views = [on_black(read_picture(path)) for path in config.views]
    found = _search(config, pixels, views, framing, host, searches or Searches(host))
    seconds = time.monotonic() - began
    box = source_box if found.source is None else found.source.box
    return Shot(
        picture=picture,
        source_box=box,
        mirrored=not config.as_published,
        square=_framed(pixels, box, size, config),
        views=tuple(
            _framed(view, box if square is None else square.box, size, config)
            for view, square in zip(views, found.views, strict=True)
        ),
        driving_box=driving_box,
        driving_size=(info.width, info.height),
        shots=found.shots,
        size=size,
        subject=None if found.source is None else found.source.subject,
        room=None if found.source is None or config.as_published else room_in(found.source, *pixels.shape[1::-1]),
        warnings=(*_several(config, found), *_missing(config, found.shots)),
        detection_s=seconds,
        detector=found.detector,
    )


def _framed(
    pixels: NDArray[np.uint8], box: Box | None, size: tuple[int, int], config: AnimateConfig
) -> NDArray[np.uint8]:
    return resize(full_square(pixels, box, mirrored=not config.as_published), size)


def full_square(pixels: NDArray[np.uint8], box: Box | None, *, mirrored: bool) -> NDArray[np.uint8]:
    """The animated part of a picture at its own resolution; a network sees it resized.  box: None is all of it.

    Outside the picture its border is repeated; mirrored: the picture is reflected there.
    """
    return pixels if box is None else crop(pixels, box, mirrored=mirrored)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the search of the inputs gave."""

    source: Square | None = None
    shots: tuple[ClipSquare, ...] = ()
    views: tuple[Square | None, ...] = ()
    detector: str | None = None


def _search(
    config: AnimateConfig,
    pixels: NDArray[np.uint8],
    views: Sequence[NDArray[np.uint8]],
    framing: Framing | None,
    host: Host,
    searches: Searches,
) -> _Found:
    """The squares that are to be found: in the source, in the driving video, in each further view of the source."""
    nothing = _Found(views=(None,) * len(views))
    wanted = config.crop == "auto", config.crop_of_driving in SEARCHED
    if config.detector is not None:
        host.find("detector", config.detector)
    if framing is None or not any(wanted):
        return nothing
    name, subject = config.detector, framing.subject
    if name is None and config.best_frame == "auto":
        # Poses are compared by landmarks where a detector at hand finds them.
        name = next((spec.name for spec in ready_detectors(host, subject) if spec.landmarks), None)
    spec, detector = searches.detector(subject, name)
    log.info("detector: %s", spec.name)
    shots: tuple[ClipSquare, ...] = ()
    if wanted[1]:
        driving_crop = cast(DrivingCrop, config.crop_of_driving)
        shots = searches.in_clip(
            driving_clip(config),
            (spec, detector),
            config.driving_width or framing.width,
            subject=subject,
            driving_crop=driving_crop,
            cuts=bool(config.cuts),
        )
    if not wanted[0]:
        return replace(nothing, shots=shots, detector=spec.name)

    def found_in(picture: NDArray[np.uint8], path: Path) -> Square:
        if not config.as_published:
            width = config.source_width or framing.width
            moves = excursions(shots, config.head_motion or 0.0) if config.motion != "absolute" else []
            return source_square(picture, detector, width, moves, subject=subject, name=path.name)
        # The square of a clip is wider where its subject moves far: the source gets the same room to move in.
        width = framing.width if not shots else min(framing.width, max(shots[0].width, LOOSEST * framing.width))
        return square_in_picture(picture, detector, width, subject=subject, name=path.name)

    return _Found(
        found_in(pixels, config.source),
        shots,
        tuple(found_in(view, path) for path, view in zip(config.views, views, strict=True)),
        spec.name,
    )


def _check_inside(box: Box | None, name: str, width: int, height: int) -> None:
    if box is not None and (box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height):
        raise UsageError(f"the crop lies outside {name}", f"It is {width}x{height} pixels.")


def _several(config: AnimateConfig, found: _Found) -> list[str]:
    warnings = []
    if found.source is not None and found.source.found > 1:
        warnings.append(f"{found.source.found} subjects in {config.source.name}: the largest is taken")
    most = max((shot.found for shot in found.shots), default=0)
    if most > 1:
        warnings.append(f"{most} subjects in {config.driving.name}: the largest is followed")
    return warnings


def _missing(config: AnimateConfig, shots: Sequence[ClipSquare]) -> list[str]:
    absent = [gap for shot in shots for gap in shot.absent]
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
