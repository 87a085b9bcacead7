"""The options of `models import` and `models export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fommctl.options import Sets, configuration

_PRESET = typer.Option("-p", "--preset", help="Name or path of the preset that it was trained with.")


@configuration
class ImportConfig:
    """A model file to keep under a name."""

    path: Annotated[Path, typer.Argument(help="A published .pth.tar or a safetensors file.", metavar="PATH")]
    name: Annotated[str | None, typer.Option(help="Name for the model; else that of the file.")] = None
    preset: Annotated[str | None, _PRESET] = None
    sets: Sets = ()
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision.")] = False
    licence: Annotated[str | None, typer.Option(help="The licence of the weights, in words.")] = None
    summary: Annotated[str | None, typer.Option(help="One line on what the model is.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of this name.")] = False


@configuration
class ExportConfig:
    """A model to write in the layout of the published checkpoints."""

    model: Annotated[str, typer.Argument(help="A name, a model file, or a checkpoint of a run.", metavar="MODEL")]
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, such as vox.pth.tar.")]
    preset: Annotated[str | None, _PRESET] = None
    sets: Sets = ()
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False
