"""The options of `train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from fommctl.errors import UsageError
from fommctl.options import Device, Precision, Reads, Seed, Sets, configuration


def parse_duration(text: str) -> float:
    """Parse a duration in seconds, or with a unit s, m, h or d, to seconds. Raises UsageError for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise UsageError(f"--max-time cannot be '{text}'", "Write it as 90, 45m, 2h or 1.5d.")
    return seconds


@configuration
class TrainConfig:
    """Configuration of a training run."""

    preset: Annotated[str, typer.Option("-p", "--preset", help="Preset, by name or path.")]
    data: Annotated[Path, typer.Option("--data", help="Clips: train/ and test/ written by preprocess, or any folder.")]
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/PRESET.")] = None
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume: 'auto' from the newest checkpoint in --out (or start if there is none), or from this path."
        ),
    ] = None
    init_from: Annotated[
        str | None, typer.Option(help="Model to start from: all tensors that fit are loaded.", metavar="MODEL")
    ] = None
    stage: Annotated[
        str | None,
        Field(pattern="[a-z0-9]+"),
        typer.Option(
            help="Train with the preset's section train_STAGE_params instead of train_params: avd for tpsmm presets, "
            "after the rest has been trained (--init-from)."
        ),
    ] = None
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps in total.")] = None
    max_time: Annotated[
        float | None,
        Field(gt=0),
        Reads(parse_duration),
        typer.Option(metavar="TIME", help="Save and stop after this time: 90 (seconds), 45m, 2h, 1.5d."),
    ] = None
    """Limit in seconds for this invocation, not the whole run."""
    workers: Annotated[int, typer.Option(min=0, help="Processes per GPU that decode and augment clips.")] = 1
    pictures_every: Annotated[int, typer.Option(min=0, help="Steps between picture grids; 0 for none.")] = 500
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints to keep, besides the best.")] = 3
    sets: Sets = ()
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.out or Path("runs") / Path(self.preset).stem

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for listeners of stage events."""
        return {**asdict(self), "data": str(self.data), "out": str(self.folder), "sets": list(self.sets)}
