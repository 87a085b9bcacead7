"""Several faces in one source: which driving face moves which, and how their pictures are blended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.animate.config import AnimateConfig, parse_map
from fommctl.animate.engine import Engine
from fommctl.animate.inputs import AnimationInputs, driving_shots, face_detector, on_black
from fommctl.animate.motion import Motion, count_motions
from fommctl.animate.plan import AnimationPlan, InputFiles, check_outputs, load_motion, plan_animation, resolve
from fommctl.animate.recording import warn
from fommctl.detection.choice import LARGEST
from fommctl.detection.search import detect_in_tiles
from fommctl.detection.tracking import confident_detections
from fommctl.errors import UsageError
from fommctl.media.boxes import Box
from fommctl.media.images import read_picture
from fommctl.media.reader import Clip

_FACES = ("face", "driving_face", "face_map")
# Where squares overlap, the one in which a pixel is deeper dominates; a higher exponent narrows the transition.
SHARPNESS = 4


def one_by_one(config: AnimateConfig, engine: Engine, driving: Clip | Motion) -> list[AnimateConfig]:
    """Return one configuration per animated face, with the numbers of its source and driving face; for one face the
    configuration as it is.

    driving: from `open_driving`. Raises UsageError for a choice of faces that is not possible, InputError if none is
    found.
    """
    chosen = config.face != LARGEST or config.driving_face is not None or config.face_map is not None
    if chosen and engine.model.preset.framing is None:
        raise UsageError(
            "--face, --driving-face and --map need a face model", "This model does not search its inputs for faces."
        )
    if config.face_map is not None:
        pairs = [(str(driver), source) for driver, source in parse_map(config.face_map)]
    elif config.face == "all":
        count = _in_source(config, engine)
        by_position = config.driving_face in (None, "all") and _in_driving(config, engine, driving) == count
        if config.driving_face == "all" and not by_position:
            raise UsageError(
                f"the source has {count} faces, but the driving video has fewer",
                "Pair them explicitly: --map 1:1,1:2.",
            )
        driver = config.driving_face or LARGEST
        pairs = [(str(number) if by_position else driver, number) for number in range(1, count + 1)]
    else:
        return [config]
    return [replace(config, face=str(source), driving_face=driver, face_map=None) for driver, source in pairs]


def plan_faces(
    config: AnimateConfig, engine: Engine, driving: Clip | Motion, files: InputFiles
) -> tuple[AnimationPlan, Clip | list[Motion]]:
    """Plan all faces to be animated, see `plan_animation`. Returns the plan, and the driving video or one motion per
    face."""
    remarks = check_outputs(config)
    configs = one_by_one(config, engine, driving)
    if len(configs) > 1 and config.source_video:
        raise UsageError("--source-video animates one face", "Choose one by its number (--face).")
    motions: list[Motion] = []
    if isinstance(driving, Motion):
        motions = [driving if each.driving_face is None else load_motion(each, engine) for each in configs]
    plans = [
        plan_animation(each, engine, motions[number] if motions else driving, files)
        for number, each in enumerate(configs)
    ]
    return together(plans, config, remarks), motions or driving  # type: ignore[return-value]  # no motions: it is a clip


def together(plans: Sequence[AnimationPlan], config: AnimateConfig, remarks: Sequence[str]) -> AnimationPlan:
    """Merge the plans of all faces into one, and log its warnings.

    config: the options that asked for all faces, for the sidecar.  remarks: warnings of `check_outputs`.
    """
    first = plans[0]
    notes = tuple(dict.fromkeys([*remarks, *(note for plan in plans for note in plan.warnings)]))
    warn(notes)
    if len(plans) == 1:
        return replace(first, warnings=notes)
    asked = replace(first.config, **{name: getattr(config, name) for name in _FACES})
    return replace(first, config=asked, others=tuple(plan.inputs for plan in plans[1:]), warnings=notes)


def _in_source(config: AnimateConfig, engine: Engine) -> int:
    pixels = on_black(read_picture(config.source, config.source_reading))
    framing = engine.model.preset.framing
    assert framing is not None
    _, detector = face_detector(config, framing, engine.detectors)
    return max(1, len(confident_detections(detect_in_tiles(pixels, detector))))


def _in_driving(config: AnimateConfig, engine: Engine, driving: Clip | Motion) -> int:
    if isinstance(driving, Motion):
        return count_motions(config.driving)
    config = resolve(config, engine.model.preset, engine.family).timed(driving.info)
    driving.start, driving.end = config.start_s, config.end_s
    framing = engine.model.preset.framing
    assert framing is not None
    whole = replace(config, face=LARGEST, driving_face=None)
    return driving_shots(whole, driving, framing, engine.detectors)[0].found


class FaceBlend:
    """Blends pictures of one source, each with another animated square, into one.

    Outside all squares, and where only one square covers a pixel, pixels are kept bit for bit.
    """

    @classmethod
    def of(cls, inputs: Sequence[AnimationInputs]) -> FaceBlend:
        """Return the blend for these inputs, one per face of the same source."""
        boxes = [each.source_box for each in inputs if each.source_box is not None]
        height, width = inputs[0].picture.pixels.shape[:2]
        return cls(boxes, (width, height))

    def __init__(self, boxes: Sequence[Box], canvas: tuple[int, int]) -> None:
        """boxes: the squares, in whole pixels.  canvas: (width, height) of the pictures."""
        width, height = canvas
        depths = [_depth(box, width, height) ** SHARPNESS for box in boxes]
        total = np.maximum(sum(depths[1:], depths[0]), np.finfo(np.float32).tiny)
        shares = [depth / total for depth in depths[1:]]
        covered = np.any(np.stack(shares) > 0, axis=0) if shares else np.zeros((height, width), bool)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        self._part = (
            (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(0), slice(0))
        )
        self._shares = [share[self._part][..., None] for share in shares]

    def __call__(self, pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Blend (H, W, C) pictures, uint8 or floats, given in the order of the squares."""
        first, *others = (picture[self._part].astype(np.float32) for picture in pictures)
        result = pictures[0].copy()
        mixed = first.copy()
        for share, other in zip(self._shares, others, strict=True):
            # Where the pictures are equal, so is the result, infinite values included.
            np.add(mixed, share * (other - first), out=mixed, where=other != first)
        if result.dtype == np.uint8:
            mixed = np.clip(np.rint(mixed), 0, 255)
        result[self._part] = mixed
        return result

    def there(self, planes: Iterable[NDArray[Any] | None]) -> NDArray[Any] | None:
        """Blend the planes of all faces; None where they are not wanted."""
        wanted = [plane for plane in planes if plane is not None]
        return self(wanted) if wanted else None


def _depth(box: Box, width: int, height: int) -> NDArray[np.float32]:
    """Return the depth of each pixel inside a square, (height, width): 0 outside and on its edges, 1 in its middle."""

    def across(start: float, length: float, size: int) -> NDArray[np.float32]:
        place = np.arange(size, dtype=np.float32) + np.float32(0.5 - start)
        part = np.minimum(place, np.float32(length) - place) / np.float32(length / 2)
        return np.asarray(np.clip(part, 0, 1), np.float32)

    inside = np.minimum(across(box.top, box.height, height)[:, None], across(box.left, box.width, width)[None])
    return np.asarray(inside, np.float32)
