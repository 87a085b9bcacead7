"""Stores the scores of each clip, so that a later run can continue, and with `--save` its predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScores
from fommctl.api.readers import parse_json
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.plan import EvaluatedModel, Task
from fommctl.files import atomic_write, replace_folder, temporary_path
from fommctl.media.writer import Writer

FORMAT = 1
_HINT = "Free some space, or write elsewhere with -o."


@dataclass
class StoredScores:
    """The scores of one model on one clip."""

    key: str
    """Hash of everything that the predictions depend on: files, model and options."""
    frames: int
    rate: float
    """Frames per second."""
    keys: dict[str, str] = field(default_factory=dict)
    """Hashes by metric of everything else that the scores depend on."""
    scores: dict[str, ClipScores] = field(default_factory=dict)
    """Scores by metric."""
    warnings: tuple[str, ...] = ()
    saved: str = "none"
    """Format of the saved predictions, as for `--save`."""

    def forget(self, keys: Mapping[str, str]) -> None:
        """Drop the scores of metrics whose hashes have changed."""
        for metric, key in keys.items():
            if self.keys.get(metric) != key:
                self.keys.pop(metric, None)
                self.scores.pop(metric, None)


def key_of(values: Mapping[str, Any]) -> str:
    """Return a hash of JSON values."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_stored(path: Path, key: str) -> StoredScores | None:
    """Read stored scores; return None if there are none with this key, or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            record = parse_json(str(archive["record"]))
            if record["format"] != FORMAT or record["key"] != key:
                return None
            warnings = tuple(str(warning) for warning in record["warnings"])
            stored = StoredScores(
                key, int(record["frames"]), float(record["rate"]), {}, {}, warnings, str(record["saved"])
            )
            for number, (metric, entry) in enumerate(record["metrics"].items()):
                prefix = f"{number}.state."
                state = {name[len(prefix) :]: archive[name] for name in archive.files if name.startswith(prefix)}
                stored.keys[metric] = entry["key"]
                stored.scores[metric] = ClipScores(
                    archive[f"{number}.frames"], entry["value"], entry["scored"], entry["total"], state
                )
            return stored
    except Exception:  # A damaged archive raises any error of zipfile, zlib, numpy or json; the clip is scored again.
        return None


def write_stored(path: Path, stored: StoredScores) -> None:
    """Write the scores of a clip, atomically. Raises OutputError."""
    arrays: dict[str, Any] = {}
    metrics = {}
    for number, (metric, scores) in enumerate(stored.scores.items()):
        arrays[f"{number}.frames"] = scores.frames
        arrays.update({f"{number}.state.{name}": array for name, array in scores.state.items()})
        metrics[metric] = {
            "key": stored.keys[metric],
            "value": scores.value,
            "scored": scores.scored,
            "total": scores.total,
        }
    record = {
        "format": FORMAT,
        "key": stored.key,
        "frames": stored.frames,
        "rate": stored.rate,
        "warnings": list(stored.warnings),
        "saved": stored.saved,
        "metrics": metrics,
    }
    arrays["record"] = np.array(json.dumps(record, allow_nan=False))
    with atomic_write(path, hint=_HINT) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


PREDICTIONS = "predictions"
_PICTURES = "%07d.png"


def predictions_path(config: EvaluateConfig, model: EvaluatedModel, task: Task) -> Path:
    """Return the path of a clip's predictions: a file (FFV1 in Matroska) or a folder of pictures."""
    name = task.name if config.save == "png" else f"{task.name}.{config.save}"
    return config.output / PREDICTIONS / model.folder / name


def is_saved(config: EvaluateConfig, model: EvaluatedModel, task: Task, saved: str) -> bool:
    """Return whether predictions exist as `--save` wants them.  saved: format that an earlier run used."""
    return config.save == "none" or (saved == config.save and predictions_path(config, model, task).exists())


class PredictionWriter:
    """Writes the predictions of a clip as they are rendered, if `--save` is given; a context manager, atomic."""

    def __init__(self, config: EvaluateConfig, model: EvaluatedModel, task: Task, rate: float) -> None:
        self._wanted = config.save != "none"
        self._pictures = config.save == "png"
        self._target = predictions_path(config, model, task)
        # Pictures are moved into place together, as a folder with only some of them would look like a short clip.
        self._folder = temporary_path(self._target)
        self._step = 1 / Fraction(rate).limit_denominator(100_000)
        self._opened = ExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Write the next frames (N, H, W, 3). Raises OutputError."""
        if not self._wanted:
            return
        for pixels in frames:
            writer = self._writer or self._open(pixels)
            number = writer.frames_written
            writer.write(pixels, number * self._step, self._step)

    def _open(self, pixels: NDArray[np.uint8]) -> Writer:
        height, width = pixels.shape[:2]
        self._target.parent.mkdir(parents=True, exist_ok=True)
        path = self._folder / _PICTURES if self._pictures else self._target
        writer = Writer(path, width=width, height=height, rate=1 / self._step, overwrite=True, threads=1)
        self._writer = self._opened.enter_context(writer)
        return writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._opened.__exit__(kind, error, trace)
            if kind is None and self._folder.is_dir():
                replace_folder(self._folder, self._target)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
