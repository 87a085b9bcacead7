"""The shot of a farm job, stored in the job's folder for all tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from fommctl.animate.config import AnimateConfig, FrameRange, ModelChoice
from fommctl.animate.inputs import Squares
from fommctl.animate.motion import DrivingFraming, framing_from_json, framing_to_json
from fommctl.api.protocols import Detection
from fommctl.detection.framing import Crop
from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.files import read_regular, write_text
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.output_paths import is_pattern
from fommctl.options import option_fields

SHOT = "shot.json"
SETTLED = "settled.json"
"""Name of the file with the shot after all options are resolved, written by the motion task."""
MOTION = "shot.motion"
FRAMES = "frames"
"""Name of the folder for a movie's lossless frames."""
DONE = "done"
"""Name of the folder with a file for each finished task."""
FORMAT, VERSION = "fommctl farm", 1
PATHS = tuple(name for name, field in option_fields(AnimateConfig).items() if field.kind is Path)
_DAMAGED = "Emit the job again."


@dataclass(frozen=True, kw_only=True, slots=True)
class FarmShot:
    """A shot to render, and its division into chunks."""

    config: AnimateConfig
    """Configuration with absolute paths, and with an output."""
    choice: ModelChoice
    frames: FrameRange
    """First and last driving frame as expected when the job was made; the last chunk extends to the actual end."""
    chunk: int
    """Driving frames per chunk."""
    squares: tuple[Squares, ...] = ()
    """Squares of each face as found by the motion task, so that the other tasks need no detector."""
    film: DrivingFraming | None = None
    """Squares of a source video as found by the motion task."""

    @property
    def encodes(self) -> bool:
        """Whether a last task encodes the rendered frames."""
        config = self.config
        return not is_pattern(config.result_path) or config.sidecar or config.motion_out is not None

    @property
    def ranges(self) -> list[FrameRange]:
        """Frames of the chunks, in order."""
        first, last = self.frames.first or 0, self.frames.last or 0
        return [FrameRange(start, min(start + self.chunk - 1, last)) for start in range(first, last + 1, self.chunk)]

    def write(self, path: Path) -> None:
        """Write the shot as JSON. Raises OutputError."""
        choice = self.choice
        data = {
            "format": FORMAT,
            "version": VERSION,
            "options": {name: value for name, value in self.config.to_json().items() if value is not None},
            "model": {name: getattr(choice, name) for name in option_fields(ModelChoice)},
            "frames": [self.frames.first, self.frames.last],
            "chunk": self.chunk,
            "squares": [[None if crop is None else _to_json(crop) for crop in face] for face in self.squares],
            "film": None if self.film is None else framing_to_json(self.film),
        }
        write_text(path, json.dumps(data, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> FarmShot:
        """Read a shot that `write` wrote. Raises InputError if the file does not exist or is damaged."""
        try:
            data = json.loads(read_regular(path))
            if data["format"] != FORMAT:
                raise ValueError("another format")
            first, last = (int(number) for number in data["frames"])
            options, model = data["options"], data["model"]
            return cls(
                config=AnimateConfig(**{name: value for name, value in options.items() if value != []}),
                choice=ModelChoice(**model),
                frames=FrameRange(first, last),
                chunk=int(data["chunk"]),
                squares=tuple(
                    tuple(None if crop is None else _from_json(crop) for crop in face)
                    for face in data.get("squares", ())
                ),
                film=None if data.get("film") is None else framing_from_json(data["film"]),
            )
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist", "Give the folder that 'fommctl farm emit' made.") from error
        except (OSError, ValueError, TypeError, KeyError, RecursionError, FommctlError) as error:
            raise InputError(f"{path} is damaged, or from another version of fommctl", _DAMAGED) from error

    def with_paths_of(self, other: FarmShot) -> FarmShot:
        """Return this shot with the paths of another one."""
        paths = {name: getattr(other.config, name) for name in PATHS}
        model = replace(self.choice, model=other.choice.model, preset=other.choice.preset)
        return replace(self, config=replace(self.config, **paths), choice=model)

    def mapped(self, rules: PathMapping) -> FarmShot:
        """Return the shot with its paths mapped to this machine."""

        def local(value: Any) -> Any:
            return tuple(map(rules, value)) if isinstance(value, tuple) else None if value is None else rules(value)

        def named(text: str | None) -> str | None:
            return None if text is None else str(rules(Path(text)))

        paths = {name: local(getattr(self.config, name)) for name in PATHS}
        choice = replace(self.choice, model=named(self.choice.model), preset=named(self.choice.preset))
        return replace(self, config=replace(self.config, **paths), choice=choice)


def _to_json(crop: Crop) -> dict[str, Any]:
    """Return a crop as JSON values."""
    subject, turned = crop.subject, crop.turned
    marks = None if subject.landmarks is None else [[float(x), float(y)] for x, y in subject.landmarks]
    return {
        "box": _sides(crop.box),
        "found": crop.found,
        "score": float(crop.score),
        "subject": [_sides(subject.box), float(subject.score), marks],
        "number": crop.number,
        "all_boxes": [_sides(box) for box in crop.all_boxes],
        "turned": None if turned is None else [*map(float, turned.center), float(turned.side), float(turned.angle)],
    }


def _from_json(data: Mapping[str, Any]) -> Crop:
    """Return a crop from JSON values of `_to_json`. Raises ValueError, TypeError or KeyError for any others."""
    box, score, marks = data["subject"]
    turned = None
    if data["turned"] is not None:
        x, y, side, angle = map(float, data["turned"])
        turned = TurnedSquare((x, y), side, angle)
    return Crop(
        Box(*data["box"]),
        int(data["found"]),
        float(data["score"]),
        Detection(Box(*box), float(score), None if marks is None else np.array(marks, np.float32)),
        int(data["number"]),
        tuple(Box(*each) for each in data["all_boxes"]),
        turned,
    )


def _sides(box: Box) -> list[float]:
    """Return left, top, right and bottom; integers stay integers."""
    return [side if isinstance(side, int) else float(side) for side in box.sides]


@dataclass(frozen=True, slots=True)
class PathMapping:
    """An engine's rules that map folders of the submitting machine to folders of this one."""

    rules: tuple[tuple[PurePath, Path], ...] = ()

    @classmethod
    def read(cls, path: Path | None) -> PathMapping:
        """Read a path mapping of Open Job Description (`pathmapping-1.0`); None and an empty file have no rules.

        Raises UsageError if it cannot be read.
        """
        if path is None:
            return cls()
        try:
            text = read_regular(path).decode("utf-8").strip()
            rules = json.loads(text)["path_mapping_rules"] if text and text != "{}" else []
            kinds: dict[str, type[PurePath]] = {"POSIX": PurePosixPath, "WINDOWS": PureWindowsPath}
            found = [
                (kinds[rule["source_path_format"].upper()](rule["source_path"]), Path(rule["destination_path"]))
                for rule in rules
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"the path mapping {path} cannot be read", "Give a file of the schema pathmapping-1.0, or none."
            ) from error
        # Longest first, as the most specific rule applies.
        return cls(tuple(sorted(found, key=lambda rule: len(rule[0].parts), reverse=True)))

    def __call__(self, path: Path) -> Path:
        """Return the path on this machine; unchanged if no rule applies."""
        for source, destination in self.rules:
            name = type(source)(str(path))
            if name.is_relative_to(source):
                return destination.joinpath(*name.relative_to(source).parts)
        return path
