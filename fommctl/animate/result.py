"""What `animate` tells of a finished result."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateResult:
    """What was written and how; `to_json` is the command's --json."""

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
    """relative or absolute."""
    reference_s: float
    """Time of the reference frame in the driving video."""
    model_rate: float
    """Frames a second of the model alone."""
    end_to_end_rate: float
    """Frames a second from the first frame read to the file closed; detection is not in it."""
    detection_s: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For --json: more keys may be added, none of these changes."""
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
            "frames_per_second": {"model": round(self.model_rate, 2), "end_to_end": round(self.end_to_end_rate, 2)},
            "detection_s": round(self.detection_s, 3),
            "warnings": list(self.warnings),
        }
