"""The motion of a driving video as a model detects it, motion files, and the times at which frames are shown.

A motion file is a safetensors file: arrays, and a header in JSON. Nothing in it is ever executed, and sizes in it are
always checked.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fommctl.api.protocols import Detection
from fommctl.detection.framing import ClipCrop, SampledDetection
from fommctl.detection.tracking import SquarePath
from fommctl.errors import InputError
from fommctl.files import publish, temporary_path
from fommctl.media.boxes import Box
from fommctl.media.colour import ColourTags
from fommctl.media.files import check_file
from fommctl.media.marking import printable
from fommctl.media.movie import output_errors
from fommctl.media.probe import VideoInfo
from fommctl.media.resampling import Pixels
from fommctl.media.stills import LONGEST_PAUSE
from fommctl.models.files import HEADER_LIMIT
from fommctl.networks.motion import MotionParts

FORMAT = "fommctl motion"
VERSION, SEVERAL = 1, 2
"""Versions of the format: for one motion, and for several, one per face."""
_FINEST_CLOCK = 10**12
"""Most ticks per second; times whose common denominator is larger are rounded."""
_EXACT = re.compile(r"-?\d{1,18}(/[1-9]\d{0,17})?")
"""A number in the notation of `str(Fraction)`."""
_COUNTS = ("numbers", "times", "durations", "present")
_NAME = re.compile(r"[a-z][a-z_]{0,40}")
_DAMAGED = "Make it again with --motion-out, or copy it again."


@dataclass(frozen=True, slots=True)
class DrivingFraming:
    """A driving video's properties, and the part of it that the model sees."""

    info: VideoInfo
    start: Fraction
    """Time of the first frame used, in seconds of the video; all other times count from there."""
    end: Fraction | None
    """Time before which the last frame used begins, in seconds of the video; None: its end."""
    box: Box | None
    """The square that was given by hand; None: see `shots`, or the whole picture."""
    shots: tuple[ClipCrop, ...]
    """The shots with their squares, in order of time; empty if no subject was searched for."""
    detector: str | None
    """Name of the detector that searched for subjects."""

    @property
    def fixed_box(self) -> Box | None:
        """The only square of the video; None if it follows the subject, differs between shots, or is the whole
        picture."""
        if len(self.shots) == 1 and self.shots[0].path is None:
            return self.shots[0].box
        return self.box

    def number_at(self, moment: Fraction) -> int:
        """Return the index of the shot at this time; 0 if no subject was searched for."""
        return max(0, bisect.bisect_right(self.shots, moment, key=lambda shot: shot.start) - 1)

    def present(self, moment: Fraction) -> bool:
        """Return whether the subject is visible at this time."""
        absent = self.shots[self.number_at(moment)].gaps if self.shots else ()
        return not any(start < moment < end for start, end in absent)


@dataclass(frozen=True, slots=True)
class DrivingFrame:
    """A frame of the driving video."""

    number: int
    """The frame's number, from 1; with an image pattern, the number in the file's name."""
    time: Fraction
    """Seconds since --start."""
    duration: Fraction
    present: bool
    """Whether it shows the subject."""
    pixels: Pixels | None = None
    """(h, w, 3) as the model sees it; None once it is no longer needed."""
    motion: MotionParts | None = None
    """The motion that the model detected, one row; None before detection."""


class _Part:
    """A descriptor: reads and writes the entry of `Motion.parts` that has the attribute's name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, motion: Any, owner: type) -> Any:
        return self if motion is None else motion.parts.get(self._name)

    def __set__(self, motion: Motion, value: NDArray[np.float32]) -> None:
        motion.parts[self._name] = value


@dataclass(slots=True)
class Motion:
    """The motion of a driving video as a model detected it, one row per frame, and how the video was framed.

    The arrays may be changed in place or replaced by others with the same number of frames. Everything that depends on
    a source and the options of `animate` (transfer, reference, smoothing, frames without the subject) comes later.
    """

    family: str
    """The family of the model (`fomm`, `monkeynet`, ...): models of other families cannot use this motion."""
    model: str
    """Name of the model."""
    driving: DrivingFraming
    clock: int
    """Ticks per second of `times` and `durations`."""
    numbers: NDArray[np.int64]
    """(N,) numbers of the frames, increasing."""
    times: NDArray[np.int64]
    """(N,) ticks since --start, increasing."""
    durations: NDArray[np.int64]
    """(N,) ticks."""
    present: NDArray[np.bool_]
    """(N,) whether the frame shows the subject."""
    parts: dict[str, NDArray[np.float32]]
    """Arrays (N, ...) of the motion, by the names of the parts of the family's `fommctl.api.blocks.MotionParts`; FOMM's
    parts are attributes too."""

    keypoints = _Part()
    """(N, K, 2) in [-1, 1], x before y; K is 0 for models that have none."""
    jacobians = _Part()
    """(N, K, 2, 2), or None."""
    covariances = _Part()
    """(N, K, 2, 2), or None: covariances of the keypoints' heatmaps."""
    codes = _Part()
    """(N, D), or None: motion codes of models without keypoints."""

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def of(cls, frames: Sequence[DrivingFrame], driving: DrivingFraming, *, family: str, model: str) -> Motion:
        """Collect frames whose motion was detected into arrays."""
        clock = math.lcm(*(value.denominator for frame in frames for value in (frame.time, frame.duration)))
        clock = clock if clock <= _FINEST_CLOCK else _FINEST_CLOCK
        rows = MotionParts.cat([frame.motion for frame in frames if frame.motion is not None]).to("cpu")
        parts = {
            name: part.numpy().copy() for name, part in zip(rows.names(), rows.parts(), strict=True) if part is not None
        }
        return cls(
            family,
            model,
            driving,
            clock,
            np.array([frame.number for frame in frames], np.int64),
            np.array([round(frame.time * clock) for frame in frames], np.int64),
            np.array([round(frame.duration * clock) for frame in frames], np.int64),
            np.array([frame.present for frame in frames], np.bool_),
            parts,
        )

    @classmethod
    def imported(
        cls, path: Path, rate: float, parts: Mapping[str, NDArray[np.float32]], *, family: str, model: str
    ) -> Motion:
        """Return motion from a file in a model family's own format, at a constant frame rate.

        parts: arrays (N, ...) by name, see `parts`.
        """
        exact = Fraction(rate).limit_denominator(1001)
        count = len(next(iter(parts.values())))
        info = VideoInfo(
            path, "video", 256, 256, exact, count, count / exact, "template", "", "", False, ColourTags(), False
        )
        times = np.arange(count, dtype=np.int64) * exact.denominator
        return cls(
            family,
            model,
            DrivingFraming(info, Fraction(0), None, None, (), None),
            exact.numerator,
            np.arange(1, count + 1, dtype=np.int64),
            times,
            np.full(count, exact.denominator, np.int64),
            np.ones(count, np.bool_),
            {name: np.ascontiguousarray(part, np.float32) for name, part in parts.items()},
        )

    def frames(
        self, kind: type[MotionParts] | None = None, device: torch.device | str = "cpu"
    ) -> Iterator[DrivingFrame]:
        """Yield one `DrivingFrame` per row, with its motion on `device` if its type is given as `kind`."""
        rows = None
        if kind is not None:
            arrays = (self.parts.get(name) for name in kind.names())
            rows = kind(
                *(
                    None if part is None else torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(device)
                    for part in arrays
                )
            )
        for index in range(len(self)):
            yield DrivingFrame(
                int(self.numbers[index]),
                Fraction(int(self.times[index]), self.clock),
                Fraction(int(self.durations[index]), self.clock),
                bool(self.present[index]),
                motion=None if rows is None else rows[index : index + 1],
            )

    def save(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Write a motion file, complete or not at all. Raises OutputError, and UsageError if the file exists and
        `overwrite` is false."""
        save_motions([self], Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, face: int = 1) -> Motion:
        """Read a motion file. Raises InputError if it is not one, or damaged.

        face: number of the face from 1, in a file with several motions.
        """
        path = Path(path)
        if not is_motion_file(path):
            raise _no_motion(path)
        header, arrays = _read(path, face)
        counts = {name: arrays.pop(name) for name in _COUNTS}
        motion = cls(header.family, header.model, _from_header(header.driving), header.clock, **counts, parts=arrays)
        motion._check(path)
        return motion

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**{name: getattr(self, name) for name in _COUNTS}, **self.parts}

    def _check(self, path: Path) -> None:
        """Raise InputError for arrays that do not fit together or hold impossible values."""

        def refuse(why: str) -> InputError:
            return InputError(f"the motion file {printable(path.name)} cannot be used: {why}", _DAMAGED)

        count = len(self.times)
        points = self.keypoints.shape[1] if self.keypoints is not None and self.keypoints.ndim == 3 else -1
        shapes = {
            **{name: (count,) for name in _COUNTS},
            "keypoints": (count, points, 2),
            "jacobians": (count, points, 2, 2),
            "covariances": (count, points, 2, 2),
        }
        for name, array in self._arrays().items():
            wanted = shapes.get(name, (count, *array.shape[1:]))
            if array.shape != wanted or array.dtype != _kind(name):
                raise refuse(f"{name} are {array.dtype} {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise refuse(f"{name} hold numbers that are not finite")
        if not count or not any(part.size for part in self.parts.values()):
            raise refuse("there is no motion in it")
        if not 1 <= self.clock <= _FINEST_CLOCK or self.times[0] < 0 or self.durations.min() < 1:
            raise refuse("its times make no sense")
        if np.diff(self.times).min(initial=1) < 1 or max(self.times[-1], self.durations.max()) > 2**62:
            raise refuse("its times do not rise")
        if self.numbers[0] < 0 or np.diff(self.numbers).min(initial=1) < 1:
            raise refuse("its frame numbers do not rise")


def save_motions(motions: Sequence[Motion], path: Path, *, overwrite: bool = True) -> None:
    """Write the motions of several faces of one driving video to one file; see `Motion.save`."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    metadata = {"format": FORMAT, "format_version": str(VERSION if len(motions) == 1 else SEVERAL)}
    for face, motion in enumerate(motions, 1):
        prefix, suffix = ("", "") if face == 1 else (f"{face}.", f".{face}")
        tensors |= {f"{prefix}{name}": np.ascontiguousarray(array) for name, array in motion._arrays().items()}
        header = _Header(motion.family, motion.model, motion.clock, _to_header(motion.driving))
        metadata[f"motion{suffix}"] = json.dumps(_adapter().dump_python(header, mode="json"))
    content, temporary = save(tensors, metadata), temporary_path(path)
    with output_errors(path):
        try:
            temporary.write_bytes(content)
            publish(temporary, path, overwrite=overwrite)
        finally:
            temporary.unlink(missing_ok=True)


def count_motions(path: Path) -> int:
    """Return the number of motions in a motion file. Raises InputError."""
    Motion.load(path)
    metadata = json.loads(_raw_header(path) or b"{}")["__metadata__"]
    return 1 + sum(str(key).startswith("motion.") for key in metadata)


def is_motion_file(path: Path) -> bool:
    """Return whether a file is a motion file, by its content, not its name."""
    try:
        header = _raw_header(path) if path.is_file() else None
    except OSError:
        return False
    return header is not None and FORMAT.encode() in header


def _raw_header(path: Path) -> bytes | None:
    """Return the header of a safetensors file; None for any other file."""
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or start[8:] != b"{" or not 2 <= length <= min(HEADER_LIMIT, os.path.getsize(path) - 8):
            return None
        return b"{" + file.read(length - 1)


def _read(path: Path, face: int) -> tuple[_Header, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    check_file(path)
    name = printable(path.name)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise _no_motion(path)
            version = printable(metadata.get("format_version", ""), 20)
            if version not in (str(VERSION), str(SEVERAL)):
                raise InputError(
                    f"{name} is a motion file of version {version}, this fommctl reads up to {SEVERAL}",
                    "Update fommctl.",
                )
            prefix, suffix = ("", "") if face == 1 else (f"{face}.", f".{face}")
            if f"motion{suffix}" not in metadata and face > 1:
                count = sum(key == "motion" or key.startswith("motion.") for key in metadata)
                raise InputError(f"there is no face {face} in {name}", f"It holds the motion of {count}.")
            names = list(file.keys())
            own = [key for key in names if key.startswith(prefix) and ("." in key) == bool(prefix)]
            keys = {key.removeprefix(prefix) for key in own}
            parts = keys - set(_COUNTS)
            if not set(_COUNTS) <= keys or not parts or not all(map(_NAME.fullmatch, parts)):
                raise InputError(
                    f"the motion file {name} is damaged: values are missing or of the wrong kind", _DAMAGED
                )
            arrays = {key: file.get_tensor(f"{prefix}{key}") for key in keys}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"the motion file {name} is truncated or damaged", _DAMAGED) from error
    try:
        data = json.loads(metadata.get(f"motion{suffix}", ""))
        _check_exact(data)
        header = _adapter().validate_python(data)
        _check_header(header)
    except (ValidationError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"the header of the motion file {name} is damaged", _DAMAGED) from error
    return header, arrays


def _no_motion(path: Path) -> InputError:
    return InputError(f"{printable(path.name)} is not a motion file", "'fommctl animate --motion-out' writes them.")


def _kind(name: str) -> type[np.generic]:
    return np.bool_ if name == "present" else np.int64 if name in _COUNTS else np.float32


@dataclass(frozen=True, slots=True)
class _Sample:
    """`SampledDetection` in the header of a motion file."""

    time: Fraction
    box: tuple[float, float, float, float] | None
    score: float
    landmarks: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True, slots=True)
class _Shot:
    """`ClipCrop` in the header of a motion file."""

    start: Fraction
    box: tuple[float, float, float, float]
    found: int
    score: float
    gaps: tuple[tuple[Fraction, Fraction], ...]
    samples: tuple[_Sample, ...]
    path: SquarePath | None


@dataclass(frozen=True, slots=True)
class _Driving:
    """`DrivingFraming` in the header of a motion file."""

    info: VideoInfo
    start: Fraction
    end: Fraction | None
    box: tuple[float, float, float, float] | None
    shots: tuple[_Shot, ...]
    detector: str | None


@dataclass(frozen=True, slots=True)
class _Header:
    family: str
    model: str
    clock: int
    driving: _Driving


@cache
def _adapter() -> TypeAdapter[_Header]:
    return TypeAdapter(_Header)


def _to_header(driving: DrivingFraming) -> _Driving:
    def sample(one: SampledDetection) -> _Sample:
        seen = one.detection
        if seen is None:
            return _Sample(one.time, None, 0.0, None)
        marks = None if seen.landmarks is None else tuple((float(x), float(y)) for x, y in seen.landmarks)
        return _Sample(one.time, _sides(seen.box), float(seen.score), marks)

    shots = tuple(
        _Shot(
            shot.start,
            _sides(shot.box),
            shot.found,
            float(shot.score),
            shot.gaps,
            tuple(map(sample, shot.samples)),
            shot.path,
        )
        for shot in driving.shots
    )
    info = replace(driving.info, path=Path(os.path.abspath(driving.info.path)))
    box = None if driving.box is None else _sides(driving.box)
    return _Driving(info, driving.start, driving.end, box, shots, driving.detector)


def _from_header(driving: _Driving) -> DrivingFraming:
    def sample(one: _Sample) -> SampledDetection:
        if one.box is None:
            return SampledDetection(one.time, None)
        marks = None if one.landmarks is None else np.array(one.landmarks, np.float32)
        return SampledDetection(one.time, Detection(Box(*one.box), one.score, marks))

    shots = tuple(
        ClipCrop(
            Box(*shot.box),
            shot.found,
            shot.score,
            shot.gaps,
            tuple(map(sample, shot.samples)),
            shot.start,
            shot.path,
        )
        for shot in driving.shots
    )
    box = None if driving.box is None else Box(*driving.box)
    return DrivingFraming(driving.info, driving.start, driving.end, box, shots, driving.detector)


@cache
def _framings() -> TypeAdapter[_Driving]:
    return TypeAdapter(_Driving)


def framing_to_json(framing: DrivingFraming) -> dict[str, Any]:
    """Convert the squares of a video to JSON values."""
    values: dict[str, Any] = _framings().dump_python(_to_header(framing), mode="json")
    return values


def framing_from_json(values: dict[str, Any]) -> DrivingFraming:
    """Convert back what `framing_to_json` returned. Raises ValueError."""
    return _from_header(_framings().validate_python(values))


def _check_exact(value: Any, key: str = "") -> None:
    """Raise ValueError for a text in the place of an exact number: parsing 1e999999999 would take pydantic forever."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_exact(item, name)
    elif isinstance(value, list):
        for item in value:
            _check_exact(item, key)
    elif key in _EXACT_FIELDS and not (
        value is None or isinstance(value, int) or (isinstance(value, str) and _EXACT.fullmatch(value))
    ):
        raise ValueError(f"{key} is not an exact number")


_EXACT_FIELDS = {"rate", "duration", "origin", "sample_aspect", "start", "end", "time", "absent", "tick"}


def _check_header(header: _Header) -> None:
    """Raise ValueError for numbers that no detection can produce."""
    driving, info = header.driving, header.driving.info
    boxes = [box for box in (driving.box, *(shot.box for shot in driving.shots)) if box is not None]
    samples = [sample for shot in driving.shots for sample in shot.samples]
    boxes += [sample.box for sample in samples if sample.box is not None]
    if not all(map(math.isfinite, itertools.chain(*boxes))) or any(b[2] <= b[0] or b[3] <= b[1] for b in boxes):
        raise ValueError("a box is damaged")
    if not (0 < info.rate <= 1000 and info.sample_aspect > 0 and 1 <= info.width < 2**16 and 1 <= info.height < 2**16):
        raise ValueError("no rate or size of a video")
    tags = (info.colour.primaries, info.colour.transfer, info.colour.matrix, info.colour.range)
    if any(tag is not None and not 0 <= tag < 256 for tag in tags):
        raise ValueError("no colour tags")
    starts = [shot.start for shot in driving.shots]
    if starts != sorted(set(starts)) or (starts and starts[0] != -1) or driving.start < 0:
        raise ValueError("shots are not in order")
    if any(not any(sample.box is not None for sample in shot.samples) for shot in driving.shots):
        raise ValueError("a shot without its subject")
    for path in (shot.path for shot in driving.shots if shot.path is not None):
        numbers = [(*square.center, square.side, square.angle) for square in path.squares]
        if len(path.times) != len(numbers) or not numbers or list(path.times) != sorted(path.times):
            raise ValueError("no path")
        if not all(map(math.isfinite, itertools.chain(path.times, *numbers))) or min(n[2] for n in numbers) <= 0:
            raise ValueError("no squares")


def _sides(box: Box) -> tuple[float, float, float, float]:
    return float(box.left), float(box.top), float(box.right), float(box.bottom)


@dataclass(frozen=True, slots=True)
class Presentation:
    """A frame's time and duration in the result, in seconds."""

    time: Fraction
    duration: Fraction


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A driving frame with the times at which its rendering is shown."""

    frame: DrivingFrame
    presentations: tuple[Presentation, ...]
    position: int
    """Number of its first presentation in the result, from 0."""


def as_driven(frames: Iterable[DrivingFrame]) -> Iterator[TimedFrame]:
    """Yield every frame with one presentation, at its own time."""
    for position, frame in enumerate(frames):
        yield TimedFrame(frame, (Presentation(frame.time, frame.duration),), position)


def at_rate(frames: Iterable[DrivingFrame], rate: Fraction, end: Fraction | None = None) -> Iterator[TimedFrame]:
    """Yield frames for a result of constant frame rate, by dropping and repeating frames of the driving video.

    A dropped frame is never rendered; a repeated one has several presentations. The result starts with the first frame.
    end: seconds at which the result stops, even in the middle of a frame. Raises InputError for a frame that lasts so
    long that its timestamps must be wrong.
    """
    period, count, first = 1 / rate, 0, None
    for frame in frames:
        first = frame.time if first is None else first
        moment = first + count * period
        presentations = []
        stop = frame.time + frame.duration
        stop = stop if end is None else min(stop, end)
        if stop - moment > LONGEST_PAUSE:
            raise InputError(
                f"the driving video shows one frame for {float(stop - moment):.0f} s: its timestamps are wrong",
                "Leave out --fps, or select a part with --start and --end.",
            )
        position = count
        while moment < stop:
            presentations.append(Presentation(moment, period))
            count += 1
            moment = first + count * period
        if presentations:
            yield TimedFrame(frame, tuple(presentations), position)
