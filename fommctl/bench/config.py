"""The configuration of `bench`, from which its command-line options are built."""

from __future__ import annotations

from typing import Annotated

import typer

from fommctl.options import Device, Precision, Seed, Sets, configuration

FRAMES, PAIRS = 24, 12
"""Default number of frames to render, and of pairs to train on."""


@configuration
class BenchConfig:
    """Options of one measurement."""

    preset: Annotated[
        str, typer.Option("-p", "--preset", help="A name (see 'fommctl presets list') or a YAML file.")
    ] = "vox-256"
    device: Device = "auto"
    precision: Precision = "auto"
    """Precision to measure; `auto` for all that are useful on the device."""
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
