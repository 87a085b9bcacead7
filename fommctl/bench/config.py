"""The options of `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from fommctl.options import Device, Precision, Seed, Sets, configuration

FRAMES = 24
PAIRS = 12


@configuration
class BenchConfig:
    """Configuration of a measurement."""

    preset: Annotated[
        str, typer.Option("-p", "--preset", help="A name (see 'fommctl presets list') or a YAML file.")
    ] = "vox-256"
    device: Device = "auto"
    precision: Precision = "auto"
    """`auto`: every precision that makes sense on the device, each a path."""
    train: Annotated[bool, typer.Option("--train", help="Measure training steps instead.")] = False
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Frames to render on each path (default {FRAMES}), or pairs to train on (default {PAIRS}).",
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames per batch on the fast paths, or pairs per training step. Default: as animate chooses; "
            "for training, 4 on a CPU, else the preset's.",
        ),
    ] = None
    seed: Seed = 0
    sets: Sets = ()
