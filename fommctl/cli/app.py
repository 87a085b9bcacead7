"""The `fommctl` command: assembles the subcommands; importing it loads neither torch nor PyAV."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fommctl import __version__
from fommctl.cli import boundary

EPILOG = "Exit codes: 0 done; 1 bug; 2 usage; 3 input or output; 4 model; 5 something optional is missing; 130 interrupted."


def _print_version(value: bool) -> None:
    if value:
        print(f"fommctl {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The application with the built-in commands and those of plugins."""
    app = typer.Typer(
        name="fommctl",
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

    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return boundary.run(lambda: build_app()(args=arguments, prog_name="fommctl", standalone_mode=False), arguments)


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
