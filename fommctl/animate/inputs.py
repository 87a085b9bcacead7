"""The inputs of an animation: reading the pictures, and finding the squares in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fommctl.animate.config import SEARCHED, AnimateConfig, parse_crop
from fommctl.animate.motion import DrivingFraming, Motion
from fommctl.api.protocols import Detection, Detector
from fommctl.api.specs import DetectorSpec
from fommctl.detection.choice import LARGEST
from fommctl.detection.detectors import DetectorCache, ready_detectors
from fommctl.detection.framing import (
    ClipCrop,
    Crop,
    Room,
    crop_in_picture,
    excursions,
    mean_crop,
    room_in,
    source_crop,
)
from fommctl.detection.landmarks import LandmarkDetector, bounds, square_around
from fommctl.detection.shots import DrivingCrop
from fommctl.errors import InputError, UsageError
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.images import Picture, read_picture
from fommctl.media.limits import check_memory
from fommctl.media.marking import printable
from fommctl.media.plates import Plate
from fommctl.media.reader import Clip
from fommctl.media.resampling import Number, crop, over_black, resize, upright
from fommctl.media.writer import holds_more
from fommctl.presets.sections import Framing, SquareParams

log = logging.getLogger(__name__)

_A_FRAME, _A_SQUARE = 36, 110
"""Bytes per pixel that rendering a plate needs in addition to its source: of the frame, and of the animated square."""
_WIDEST_CROP = 4
"""Largest side of a square given by hand, in longer sides of its picture."""
LOOSEST = 0.75
"""Smallest width of the subject, relative to its preset's: framed looser, its face would lose too many pixels."""
Squares = tuple[Crop | None, ...]
"""Squares found in the source and in each further view of its subject; None where none was searched for."""


@dataclass(frozen=True, slots=True)
class AnimationInputs:
    """Everything about the inputs that does not change from frame to frame."""

    picture: Picture
    """The whole source."""
    source_box: Box | None
    """The animated square in the picture; None: the whole picture is the model's input."""
    mirrored: bool
    """Whether the picture is extended by reflection where the square reaches beyond it, instead of by its border."""
    turned: TurnedSquare | None
    """The animated square itself where it may be turned; `source_box` is then its bounding box."""
    square: NDArray[np.uint8]
    """(N, N, 3): the source as the model sees it."""
    views: tuple[NDArray[np.uint8], ...]
    """(N, N, 3) each: more pictures of its subject, framed like it."""
    driving: DrivingFraming
    size: tuple[int, int]
    """(width, height) of the model's frames."""
    squares: Squares
    room: Room | None
    """Room for the source's subject to move before it leaves its square, where that is known."""
    film: DrivingFraming | None
    """The source where it is a video whose frames are all animated; `picture` and `square` are then of its first
    frame."""
    warnings: tuple[str, ...]
    detection_s: float

    @property
    def subject(self) -> Detection | None:
        """The source's subject, where one was searched for."""
        if self.film is not None:
            samples = self.film.shots[0].samples if self.film.shots else ()
            return next((one.detection for one in samples if one.detection is not None), None)
        found = self.squares[0]
        return None if found is None else found.subject

    @property
    def all_boxes(self) -> tuple[Box, ...]:
        """Boxes of all subjects in the source, from left to right; empty if none were searched for."""
        found = self.squares[0]
        return () if found is None else found.all_boxes

    @property
    def full(self) -> NDArray[np.uint8]:
        """The animated part of the source, laid over black, at its own resolution."""
        return _full(on_black(self.picture), self.source_box, self.turned, mirrored=self.mirrored)


def find_inputs(
    config: AnimateConfig,
    driving: Clip | Motion,
    framing: Framing | None,
    size: tuple[int, int],
    detectors: DetectorCache,
    squares: Squares | None = None,
    film: Clip | None = None,
    filmed: DrivingFraming | None = None,
) -> AnimationInputs:
    """Read the source and find the squares of source, views and driving video.

    framing: framing of the model's preset; None: nothing is searched.  size: (width, height) of the model's frames.
    detectors: cache of detections, shared by jobs.  squares: squares that are already known, beside a motion file.
    film: the source, if it is a video whose frames are all animated.  filmed: its squares, if already known.
    Raises InputError if a subject is wanted and none is found.
    """
    deep = holds_more(config.result_path, codec=config.codec, pix_fmt=config.pix_fmt)
    picture = read_picture(config.source, config.source_reading, deep=deep) if film is None else _first(film)
    _check_exact(config, picture.plate)
    pixels = on_black(picture)
    source_box, driving_box = parse_crop(config.crop), parse_crop(config.crop_of_driving, SEARCHED)
    _check_inside(source_box, config.source.name, pixels.shape[1], pixels.shape[0])
    if isinstance(driving, Clip):
        _check_inside(driving_box, config.driving.name, driving.info.width, driving.info.height)
    began = time.monotonic()
    views = [on_black(read_picture(path, config.source_reading)) for path in config.views]
    if squares is not None and isinstance(driving, Motion):
        found = _Found(squares[0], driving.driving.shots, squares[1:], driving.driving.detector)
    else:
        found = _search(config, driving, None if film else pixels, views, framing, detectors)
    if deep and (square := found.source.box if found.source else source_box) is not None:
        height, width = pixels.shape[:2]
        area = round(square.clipped(width, height).area)
        check_memory(config.source.name, width, height, width * height * _A_FRAME + area * _A_SQUARE)
    box, turned = (source_box, None) if found.source is None else (found.source.box, found.source.turned)
    if film is not None:
        filmed = filmed or _film_framing(config, film, framing, detectors)
        box, turned = square_at(filmed, Fraction(0))
    seconds = time.monotonic() - began
    return AnimationInputs(
        picture=picture,
        source_box=box,
        mirrored=not config.as_published,
        turned=turned,
        square=framed(pixels, box, turned, size, config),
        views=tuple(
            framed(view, *((box, turned) if square is None else (square.box, square.turned)), size, config)
            for view, square in zip(views, found.views, strict=True)
        ),
        driving=_until_end_of(film, driving.driving)
        if isinstance(driving, Motion)
        else DrivingFraming(driving.info, driving.start, driving.end, driving_box, found.shots, found.detector),
        size=size,
        squares=(found.source, *found.views),
        room=None
        if found.source is None or turned is not None or config.as_published
        else room_in(found.source, pixels.shape[1]),
        film=filmed,
        warnings=(
            *_several(config, found),
            *_missing(config, found.shots),
            *_missing_in(filmed),
            *_replaced(config, picture),
        ),
        detection_s=seconds,
    )


def one_picture(source: Path) -> UsageError:
    """Return the error for --source-video with a single picture."""
    return UsageError(f"--source-video, but {printable(source.name)} is one picture", "Leave the option out.")


def open_source(config: AnimateConfig) -> Clip:
    """Open the source as a video. Raises InputError, and UsageError if it is a single picture."""
    clip = Clip(config.source, fps=config.fps, deinterlace=config.deinterlace, reading=config.source_reading)
    if clip.info.frames == 1:
        clip.close()
        raise one_picture(config.source)
    return clip


def _first(film: Clip) -> Picture:
    with film.reader() as reader:
        return Picture(next(iter(reader)).pixels)


def _film_framing(
    config: AnimateConfig, film: Clip, framing: Framing | None, detectors: DetectorCache
) -> DrivingFraming:
    """Find the squares of a video as source: one per shot, or one per frame where the preset frames sources by
    landmarks."""
    shots: tuple[ClipCrop, ...] = ()
    name = None
    if config.crop == "auto" and framing is not None:
        name = face_detector(config, framing, detectors)[0].name
        square = None if config.source_width else framing.source
        shots = _shots(
            config,
            film,
            framing,
            detectors,
            width=config.source_width or framing.width,
            square=square,
            driving_crop="fixed" if square is None else "follow",
            cuts=True,
            face=config.face,
        )
    return DrivingFraming(film.info, film.start, film.end, parse_crop(config.crop), shots, name)


def square_at(film: DrivingFraming, moment: Fraction) -> tuple[Box | None, TurnedSquare | None]:
    """Return the square of a source video at a time: its bounding box, and the square itself where it may be turned."""
    if not film.shots:
        return film.box, None
    shot = film.shots[film.number_at(moment)]
    if shot.path is None:
        return shot.box, None
    turned = shot.path.at(float(moment))
    return bounds(turned), turned


def _until_end_of(film: Clip | None, driving: DrivingFraming) -> DrivingFraming:
    """Shorten the driving video of a motion file to the length of a video as source."""
    if film is None or film.info.duration is None:
        return driving
    end = driving.start + film.info.duration
    return replace(driving, end=end if driving.end is None else min(driving.end, end))


def framed(
    pixels: NDArray[np.uint8],
    box: Box | None,
    turned: TurnedSquare | None,
    size: tuple[int, int],
    config: AnimateConfig,
) -> NDArray[np.uint8]:
    """Return the animated square of a source as the model sees it."""
    return resize(_full(pixels, box, turned, mirrored=not config.as_published), size)


def _full(
    pixels: NDArray[np.uint8], box: Box | None, turned: TurnedSquare | None, *, mirrored: bool
) -> NDArray[np.uint8]:
    """Cut out a square at its own resolution like `full_square`; a turned one is rotated upright, and outside the
    picture its border is repeated."""
    if turned is None:
        return full_square(pixels, box, mirrored=mirrored)
    side = max(1, round(turned.side))
    return upright(pixels, turned, (side, side))


def full_square(pixels: NDArray[Number], box: Box | None, *, mirrored: bool) -> NDArray[Number]:
    """Cut the animated square out of a picture, at its own resolution.

    box: the square; None is the whole picture.  mirrored: extend the picture by reflection, not by repeating its
    border.
    """
    return pixels if box is None else crop(pixels, box, mirrored=mirrored)


@dataclass(frozen=True, slots=True)
class _Found:
    """Squares found in the inputs, and the name of the detector that found them."""

    source: Crop | None = None
    shots: tuple[ClipCrop, ...] = ()
    views: tuple[Crop | None, ...] = ()
    detector: str | None = None


def _search(
    config: AnimateConfig,
    driving: Clip | Motion,
    pixels: NDArray[np.uint8] | None,
    views: Sequence[NDArray[np.uint8]],
    framing: Framing | None,
    detectors: DetectorCache,
) -> _Found:
    """Search source, driving video and views for the squares that the options leave to detection.

    pixels: the source; None if it is not to be searched.
    """
    wanted = (
        config.crop == "auto" and (pixels is not None or bool(views)),
        isinstance(driving, Clip) and config.crop_of_driving in SEARCHED,
    )
    shots: tuple[ClipCrop, ...] = driving.driving.shots if isinstance(driving, Motion) else ()
    nothing = _Found(shots=shots, views=(None,) * len(views))
    if config.detector is not None:
        detectors.host.find("detector", config.detector)
    if framing is None or not any(wanted):
        return nothing
    subject = framing.subject
    spec, detector = face_detector(config, framing, detectors)
    log.info("detector: %s", spec.name)
    if isinstance(driving, Clip) and wanted[1]:
        shots = driving_shots(config, driving, framing, detectors)
    if not wanted[0]:
        return replace(nothing, shots=shots, detector=spec.name)

    def found_in(picture: NDArray[np.uint8], path: Path, face: str = LARGEST) -> Crop:
        if config.as_published:
            # A clip whose subject moves far has a wider square: give the source the same room to move.
            width = framing.width if not shots else min(framing.width, max(shots[0].width, LOOSEST * framing.width))
            found = crop_in_picture(picture, detector, width, subject=subject, name=path.name, face=face)
        else:
            width = config.source_width or framing.width
            moves = excursions(shots, config.head_motion or 0.0) if config.motion != "absolute" else []
            found = source_crop(picture, detector, width, moves, subject=subject, name=path.name, face=face)
        landmarks = found.subject.landmarks
        if framing.source is None or config.source_width or landmarks is None:
            return found
        turned = square_around(framing.source, landmarks)
        return found if turned is None else replace(found, box=bounds(turned), turned=turned)

    return _Found(
        None if pixels is None else found_in(pixels, config.source, config.face),
        shots,
        tuple(found_in(view, path) for path, view in zip(config.views, views, strict=True)),
        spec.name,
    )


def face_detector(config: AnimateConfig, framing: Framing, detectors: DetectorCache) -> tuple[DetectorSpec, Detector]:
    """Return the detector of the preset's subject: the one that was named, else the best. Raises UsageError and
    MissingError."""
    name = config.detector
    if name is None and (config.best_frame == "auto" or framing.source or framing.driving):
        # Comparing poses and framing by landmarks need a detector that finds landmarks.
        name = next((spec.name for spec in ready_detectors(detectors.host, framing.subject) if spec.landmarks), None)
    return detectors.detector(framing.subject, name)


def driving_shots(
    config: AnimateConfig, driving: Clip, framing: Framing, detectors: DetectorCache
) -> tuple[ClipCrop, ...]:
    """Find the driving face in each shot of a driving video. Raises InputError if it is not found."""
    width = config.driving_width or framing.width
    square = None if config.driving_width else framing.driving
    shots = _shots(
        config,
        driving,
        framing,
        detectors,
        width=width,
        square=square,
        driving_crop=cast(DrivingCrop, config.crop_of_driving),
        cuts=bool(config.cuts),
        face=config.driving_face or LARGEST,
    )
    if square is None or not config.as_published:
        return shots
    return tuple(shot if shot.path is not None else mean_crop(shot, width, framing.subject) for shot in shots)


def _shots(
    config: AnimateConfig,
    clip: Clip,
    framing: Framing,
    detectors: DetectorCache,
    *,
    width: float,
    square: SquareParams | None,
    **how: Any,
) -> tuple[ClipCrop, ...]:
    """Find a subject in each shot of a video.

    width: width of its box, in sides of its square.  square: framing by landmarks, None by the box.  how: see
    `DetectorCache.in_clip`.
    """
    spec, detector = face_detector(config, framing, detectors)
    if square is not None:
        detector = LandmarkDetector(detector, square, width, framing.subject)
    return detectors.in_clip(clip, (spec, detector), width, subject=framing.subject, **how)


def _check_exact(config: AnimateConfig, plate: Plate | None) -> None:
    """Raise InputError for a TIFF source whose numbers a TIFF result would round, even outside the matte."""
    kinds = {"double": "floats of 64 bits", "uint32": "integers of 32 bits"}
    as_tiff = config.result_path.suffix.lower() in (".tif", ".tiff")
    if plate is not None and plate.format == "tiff" and plate.depth in kinds and as_tiff:
        raise InputError(
            f"{config.source.name} holds {kinds[plate.depth]}, which a TIFF result cannot store",
            "Convert it to 32-bit floats or 16-bit integers first, or write OpenEXR.",
        )


def _check_inside(box: Box | None, name: str, width: int, height: int) -> None:
    """Raise UsageError for a given square outside its picture, or so large that filling the rest would take
    gigabytes."""
    if box is None:
        return
    if box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height:
        raise UsageError(f"the crop lies outside {name}", f"It is {width}x{height} pixels.")
    if box.right - box.left > _WIDEST_CROP * max(width, height):
        raise UsageError(
            f"the crop is {box.right - box.left} pixels wide and {name} only {width}x{height}", "Give a smaller square."
        )


def _several(config: AnimateConfig, found: _Found) -> list[str]:
    warnings = []
    if found.source is not None and found.source.found > 1 and config.face == LARGEST:
        one = f"the largest is taken, number {found.source.number} from the left (--face)"
        warnings.append(f"{found.source.found} subjects in {config.source.name}: {one}")
    most = max(found.shots, key=lambda shot: shot.found, default=None)
    if most is not None and most.found > 1 and config.driving_face in (None, LARGEST):
        one = f"the largest is followed, number {most.number} from the left (--driving-face)"
        warnings.append(f"{most.found} subjects in {config.driving.name}: {one}")
    return warnings


def _missing(config: AnimateConfig, shots: Sequence[ClipCrop]) -> list[str]:
    absent = [gap for shot in shots for gap in shot.gaps]
    if not absent:
        return []
    places = ", ".join(f"{max(0.0, float(start)):.2f}-{float(end):.2f} s" for start, end in absent[:3])
    places += f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    if config.on_missing == "fail":
        raise InputError(f"no subject in {config.driving.name} at {places}", "Use --on-missing hold or skip.")
    done = "the last pose is held" if config.on_missing == "hold" else "the source is shown as it is"
    return [f"no subject in {config.driving.name} at {places}: {done}"]


def _missing_in(film: DrivingFraming | None) -> list[str]:
    gaps = [] if film is None else [gap for shot in film.shots for gap in shot.gaps]
    if film is None or not gaps:
        return []
    seconds = sum(float(min(end, film.info.duration or end) - max(start, Fraction(0))) for start, end in gaps)
    return [f"no subject in {film.info.path.name} for {seconds:.2f} s: those frames are shown as they are"]


def _replaced(config: AnimateConfig, picture: Picture) -> list[str]:
    count = 0 if picture.plate is None else picture.plate.replaced
    return [f"{config.source.name} contains NaN or infinity in {count} pixels: they are black"] if count else []


def on_black(picture: Picture) -> NDArray[np.uint8]:
    """Composite a picture over black: (H, W, 3)."""
    return over_black(picture.pixels, picture.alpha)
