"""The description of a finished result: `AnimateResult` for the caller, and the sidecar."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from fommctl import __version__
from fommctl.animate.engine import Engine
from fommctl.animate.plan import AnimationPlan
from fommctl.files import write_text
from fommctl.media.boxes import Box
from fommctl.media.marking import TRAINED_ALGORITHMIC_MEDIA
from fommctl.models import registry
from fommctl.provenance.hashing import InputFile, media_hash, model_identity
from fommctl.provenance.sidecar import VERSION, environment, sidecar_of

log = logging.getLogger(__name__)
NOT_RECORDED = ("source", "driving", "views", "output", "motion_out", "uv", "overwrite", "sidecar", "sign", "sign_key")
"""Options that do not affect the picture, and paths, which are recorded under `inputs`."""


def warn(warnings: Iterable[str]) -> None:
    """Log warnings that the result contains too, marked `in_result`, so that they need not be shown twice."""
    for warning in warnings:
        log.warning("%s", warning, extra={"in_result": True})


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateResult:
    """The written result and how it was made; `to_json` is the command's --json."""

    output: Path
    frames: int
    fps: Fraction
    width: int
    height: int
    audio: str | None
    model: str
    preset: str
    device: str
    precision: str
    motion: str
    """Motion mode, one of `BackendSpec.motions`."""
    reference_s: float
    """Time of the first shot's reference frame, seconds since --start."""
    model_rate: float
    """Frames per second of the model alone."""
    end_to_end_rate: float
    """Frames per second from the first frame read to the file closed, without detection."""
    detection_s: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "output": str(self.output),
            "frames": self.frames,
            "fps": f"{self.fps.numerator}/{self.fps.denominator}",
            "width": self.width,
            "height": self.height,
            "duration_s": round(float(self.frames / self.fps), 6),
            "audio": self.audio,
            "model": self.model,
            "preset": self.preset,
            "device": self.device,
            "precision": self.precision,
            "motion": self.motion,
            "reference_s": round(self.reference_s, 6),
            "frames_per_second": {
                # Large models on a CPU take minutes per frame: round to significant digits, not decimals.
                "model": float(f"{self.model_rate:.4g}"),
                "end_to_end": float(f"{self.end_to_end_rate:.4g}"),
            },
            "detection_s": round(self.detection_s, 3),
            "warnings": list(self.warnings),
        }


def write_sidecar(
    plan: AnimationPlan,
    engine: Engine,
    result: AnimateResult,
    *,
    references: Sequence[Fraction],
    batch_size: int,
    encoder_threads: int,
    unsigned: str | None = None,
) -> Path:
    """Write the sidecar of a finished result beside it, atomically, and return its path.

    references: times of the reference frames, one per shot.  batch_size, encoder_threads: the values in effect.
    unsigned: SHA-256 of a signed result before it was signed.
    Raises OutputError, and InputError if an input has changed since it was read; the result is kept.
    """
    config, driving = plan.config, plan.inputs.driving
    path = sidecar_of(config.result_path)
    folder = path.parent
    identity = model_identity(engine.model)
    model, files = engine.model.path, dict(plan.files)
    record: dict[str, Any] = {
        "format": "fommctl sidecar",
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": {"name": "fommctl", "version": __version__},
        "synthetic": True,
        "digital_source_type": TRAINED_ALGORITHMIC_MEDIA,
        "inputs": {
            "source": _input(files["source"], folder),
            "driving": _input(files["driving"], folder),
            "views": [_input(file, folder) for role, file in files.items() if role.startswith("view ")],
        },
        "model": {
            "name": identity["name"],
            "file": None if model is None else {**_model_places(engine, model, folder), "sha256": identity["sha256"]},
            "preset": identity["preset"],
        },
        "options": _options(plan, batch_size, encoder_threads),
        "settings": {
            "device": result.device,
            "precision": result.precision,
            "seed": engine.seed,
            "torch_threads": torch.get_num_threads(),
            "encoder_threads": encoder_threads,
        },
        "settled": {
            "source_square": _square(plan.inputs.source_box),
            "driving_square": _square(driving.fixed_box),
            "shots": [
                {
                    "start_s": round(max(0.0, float(shot.start)), 6),
                    "reference_s": round(float(reference), 6),
                    "square": _square(shot.box) if shot.path is None else None,
                }
                for shot, reference in zip(driving.shots, references, strict=False)
            ],
            "reference_s": round(float(references[0]), 6),
            "detector": driving.detector,
        },
        "environment": environment(engine.host, torch.device(result.device)),
        "output": {**_file(config.result_path, folder), "unsigned_sha256": unsigned},
        "result": result.to_json(),
    }
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def _options(plan: AnimationPlan, batch_size: int, encoder_threads: int) -> dict[str, Any]:
    """Return the options with automatic choices filled in, so that another machine makes the same ones."""
    config = plan.config
    options = {name: value for name, value in config.to_json().items() if name not in NOT_RECORDED}
    # Only an embedded matte is part of the result.
    options["matte"] = "embed" if config.matte == "embed" else None
    options |= {"motion": plan.mode, "batch_size": batch_size, "encoder_threads": encoder_threads}
    return {**options, "detail": plan.detail, "detector": plan.inputs.driving.detector or config.detector}


def _file(path: Path, folder: Path) -> dict[str, Any]:
    return {**_places(path, folder), "sha256": media_hash(path)}


def _input(file: InputFile, folder: Path) -> dict[str, Any]:
    return {**_places(file.path, folder), "sha256": file.sha256()}


def _model_places(engine: Engine, path: Path, folder: Path) -> dict[str, str | None]:
    """Return the paths of the model's file; a registered model has only a name, because it is found by that."""
    entry = registry.entries(engine.host).get(engine.model.name)
    if entry is not None and entry.path == path:
        return {"path": path.name, "relative": None}
    return _places(path, folder)


def _places(path: Path, folder: Path) -> dict[str, str | None]:
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # On Windows: another drive.
        relative = None
    return {"path": str(path), "relative": relative}


def _square(box: Box | None) -> list[float] | None:
    """Return the square as [left, top, right, bottom] in pixels."""
    return None if box is None else [float(side) for side in box.sides]
