"""The plan of a shot, settled before the first frame is rendered: the squares, and where the subject is missing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError, UsageError
from fommctl.host import Host
from fommctl.media.boxes import Box
from fommctl.media.images import Picture, crop, read_picture, resize
from fommctl.media.probe import VideoInfo
from fommctl.presets import Framing
from fommctl.stages.framing import choose_detector, square_in_clip, square_in_picture
from fommctl.stages.options import AnimateConfig, parse_crop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shot:
    """Everything about the inputs that does not change from frame to frame."""

    picture: Picture
    """The whole source."""
    source_box: Box | None
    """The animated square in the picture; None: the whole picture is the model's input."""
    square: NDArray[np.uint8]
    """(N, N, 3): the source as the model sees it."""
    driving_box: Box | None
    size: tuple[int, int]
    """(width, height) of the model's frames."""
    absent: tuple[tuple[Fraction, Fraction], ...]
    """Half-open intervals of driving time (seconds) without a subject."""
    warnings: tuple[str, ...]
    detection_s: float

    def present(self, moment: Fraction) -> bool:
        """Is the subject in the driving video at this time?"""
        return not any(start <= moment < end for start, end in self.absent)


def plan(config: AnimateConfig, info: VideoInfo, framing: Framing | None, size: tuple[int, int], host: Host) -> Shot:
    """Read the source and settle both squares. Raises InputError where a subject is asked for and none is found."""
    began = time.monotonic()
    picture = read_picture(config.source)
    pixels = on_black(picture)
    source_box, driving_box = parse_crop(config.crop), parse_crop(config.crop_of_driving)
    absent: tuple[tuple[Fraction, Fraction], ...] = ()
    warnings: list[str] = []
    wanted = {"source": config.crop == "auto", "driving": config.crop_of_driving == "auto"}
    if any(wanted.values()) and framing is None:
        explicit = config.driving_crop == "auto" or config.detector is not None
        if explicit:
            raise UsageError("this model's preset names no subject to crop to", "Give --crop none or X,Y,SIZE.")
    elif framing is not None and any(wanted.values()):
        spec, detector = choose_detector(host, framing.subject, config.detector)
        log.info("detector: %s", spec.name)
        if wanted["source"]:
            source = square_in_picture(pixels, detector, framing.width)
            source_box = source.box
            if source.found > 1:
                warnings.append(f"{source.found} {framing.subject}s in {config.source.name}: the largest is taken")
        if wanted["driving"]:
            clip = square_in_clip(
                config.driving, detector, framing.width, start=config.start, end=config.end, fps=config.fps
            )
            driving_box, absent = clip.box, clip.absent
            if clip.found > 1:
                warnings.append(f"{clip.found} {framing.subject}s in {config.driving.name}: the largest is followed")
    _check_missing(config, absent, warnings)
    for box, name, width, height in (
        (source_box, config.source.name, pixels.shape[1], pixels.shape[0]),
        (driving_box, config.driving.name, info.width, info.height),
    ):
        if box is not None and (box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height):
            raise UsageError(f"the crop lies outside {name}", f"It is {width}x{height} pixels.")
    square = resize(pixels if source_box is None else crop(pixels, source_box), size)
    return Shot(picture, source_box, square, driving_box, size, absent, tuple(warnings), time.monotonic() - began)


def _check_missing(config: AnimateConfig, absent: tuple[tuple[Fraction, Fraction], ...], warnings: list[str]) -> None:
    if not absent:
        return
    places = ", ".join(f"{float(start):.2f}-{float(end):.2f} s" for start, end in absent[:3])
    places += f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    if config.on_missing == "fail":
        raise InputError(f"no subject in {config.driving.name} at {places}", "Use --on-missing hold or skip.")
    done = "the last pose is held" if config.on_missing == "hold" else "the source is shown as it is"
    warnings.append(f"no subject in {config.driving.name} at {places}: {done}")


def on_black(picture: Picture) -> NDArray[np.uint8]:
    """The picture (H, W, 3) laid over black."""
    if picture.alpha is None:
        return picture.pixels
    product = picture.pixels.astype(np.uint16) * picture.alpha[..., None]
    return ((product + 127) // 255).astype(np.uint8)
