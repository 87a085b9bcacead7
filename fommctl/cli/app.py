"""The `fommctl` command: assembles the subcommands; importing it loads neither torch nor PyAV."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fommctl import __version__
from fommctl.cli import boundary
from fommctl.cli.plugin_commands import GroupWithPlugins

COMMANDS = (
    "animate",
    "batch",
    "crop",
    "preprocess",
    "train",
    "evaluate",
    "inspect",
    "models",
    "presets",
    "plugins",
    "doctor",
    "bench",
    "demo",
)
"""The modules of this package with a `register(app)`, in the order of --help."""
COMPLETION_VARIABLE = "_FOMMCTL_COMPLETE"
EPILOG = (
    "Exit codes: 0 done; 1 bug; 2 usage; 3 input or output; 4 model; 5 something optional is missing; "
    "6 some checks or jobs failed; 130 interrupted."
)


def _print_version(value: bool) -> None:
    if value:
        print(f"fommctl {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The application with the built-in commands; those of plugins are looked up when they are asked for."""
    app = typer.Typer(
        name="fommctl",
        cls=GroupWithPlugins,
        help="Animate a still image with the motion of a video.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    for name in COMMANDS:
        importlib.import_module(f"fommctl.cli.{name}").register(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return boundary.run(lambda: _dispatch(arguments), arguments)


def _dispatch(arguments: list[str]) -> None:
    app = build_app()
    if COMPLETION_VARIABLE in os.environ:
        app(prog_name="fommctl")
    # Not app(...): typer's own main would turn an EOFError into an abort and swallow KeyboardInterrupt.
    command = typer.main.get_command(app)
    # Parsing takes the words out of the list; the report of `evaluate` shows the whole command.
    with command.make_context("fommctl", list(arguments), obj=tuple(arguments)) as context:
        command.invoke(context)
