"""The options of `models import` and `models export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fommctl.options import Sets, configuration

_PRESET = typer.Option("-p", "--preset", help="Preset that the model was trained with, by name or path.")


@configuration
class ImportConfig:
    """A model file to keep under a name."""

    path: Annotated[Path, typer.Argument(help="A published .pth.tar file, or a safetensors file.", metavar="PATH")]
    name: Annotated[str | None, typer.Option(help="Name for the model. Default: the file's.")] = None
    preset: Annotated[str | None, _PRESET] = None
    sets: Sets = ()
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision.")] = False
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, as text.")] = None
    summary: Annotated[str | None, typer.Option(help="One-line description of the model.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of the same name.")] = False


@configuration
class ExportConfig:
    """A model to write in the layout of the published checkpoints."""

    model: Annotated[str, typer.Argument(help="A name, a model file, or a training checkpoint.", metavar="MODEL")]
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, such as vox.pth.tar.")]
    preset: Annotated[str | None, _PRESET] = None
    sets: Sets = ()
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False
