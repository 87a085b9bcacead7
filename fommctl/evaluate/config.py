"""What to evaluate and how: one frozen configuration, checked as a whole before any work is done."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fommctl.animate.config import check_choice
from fommctl.errors import UsageError
from fommctl.presets.config import check_seed

ModelMode = Literal["reconstruction", "animation", "defaults"]
Mode = Literal[ModelMode, "files"]
"""Mode of an evaluation: `files` for finished results."""
SplitChoice = Literal["auto", "test", "train", "all"]
Save = Literal["none", "png", "mkv"]
NEITHER = "Give --data to evaluate a model, or --pred and --truth to score finished results."


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """See `fommctl evaluate --help` for the meaning of each option."""

    output: Path
    models: tuple[str | None, ...] = (None,)
    """Names of the registry or paths; None: the built-in model, or the weights registered for `preset`."""
    names: tuple[str, ...] = ()
    """To print, one for each model or folder of predictions; empty: those of the models."""
    data: Path | None = None
    predictions: tuple[Path, ...] = ()
    """Files or folders of finished results; the models are not used then."""
    truth: Path | None = None
    mode: ModelMode = "reconstruction"
    split: SplitChoice = "auto"
    pairs: Path | None = None
    preset: str | None = None
    sets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Names or families (`akd`); empty: all that are ready and make sense."""
    keypoints: str = "auto"
    embedder: str | None = None
    max_clips: int | None = None
    max_frames: int | None = None
    """Of each clip, from its first frame on."""
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    workers: int | None = None
    """Processes; None: chosen for the device.  0: none but this one."""
    resize: bool = False
    """Finished results of another size are resized to that of the truth, not refused."""
    column: int | None = None
    """Finished results are grids: the number of the column to score, from 0."""
    save: Save = "none"
    videos: bool = True
    overwrite: bool = False
    """Score anew what an earlier run has scored."""

    def __post_init__(self) -> None:
        for name, choices in (("mode", ModelMode), ("split", SplitChoice), ("save", Save)):
            check_choice(f"--{name}", getattr(self, name), get_args(choices))
        check_seed(self.seed)
        for name, least in (("max_clips", 1), ("max_frames", 1), ("workers", 0), ("column", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}", f"Give a number from {least} on.")
        if self.finished:
            self._check_finished()
        elif self.truth is not None or self.data is None:
            raise UsageError("there is nothing to evaluate", NEITHER)
        elif self.resize or self.column is not None:
            raise UsageError("--resize and --column are for finished results", NEITHER)
        if self.pairs is not None and self.mode == "reconstruction":
            raise UsageError("--pairs is for animation", "Add --mode animation or --mode defaults.")
        evaluated = self.predictions if self.finished else self.models
        if self.names and len(self.names) != len(evaluated):
            raise UsageError(f"{len(self.names)} names for {len(evaluated)} models", "Give each its own with --names.")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise UsageError(f"the name '{twice[0]}' is there twice", "Give each its own with --names.")

    def _check_finished(self) -> None:
        if self.truth is None:
            raise UsageError("--pred needs --truth", "Name the folder of the true clips.")
        if self.data is not None or any(model is not None for model in self.models):
            raise UsageError("--pred excludes --model and --data", NEITHER)
        if self.mode != "reconstruction" or self.save != "none":
            raise UsageError("--mode and --save are for models", NEITHER)

    @property
    def finished(self) -> bool:
        """Whether finished results are scored, and no model is used."""
        return bool(self.predictions)

    def to_json(self) -> dict[str, Any]:
        """For listeners and for what is saved beside the results."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
