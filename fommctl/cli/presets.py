"""`fommctl presets`: the named configurations."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command, complete_presets

if TYPE_CHECKING:
    from fommctl.animate.config import ModelChoice

HELP = "Named configurations of models and their training."


def register(app: typer.Typer) -> None:
    """Add `presets list` and `presets show`."""
    from fommctl.animate.config import ModelChoice

    group = typer.Typer(help=HELP, no_args_is_help=True)
    app.add_typer(group, name="presets")
    command(group, "list", epilog="Example: fommctl presets list --json")(list_presets)
    command(
        group,
        "show",
        reads={"choice": (ModelChoice, "sets")},
        epilog="Example: fommctl presets show vox --set train_params.batch_size=8",
    )(show_preset)


def list_presets(session: Session) -> None:
    """List all presets: those that ship with fommctl and those of plugins."""
    from rich.table import Table
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.presets.preset import preset_specs, summary_of

    rows: list[dict[str, Any]] = [
        {"name": name, "aliases": list(spec.aliases), "summary": summary_of(spec), "path": str(spec.path)}
        for name, spec in sorted(preset_specs(load_host()).items())
    ]
    table = Table(box=None, pad_edge=False)
    for heading in ("preset", "alias", "summary"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(Text(row["name"]), Text(", ".join(row["aliases"])), Text(row["summary"]))
    session.result({"presets": rows}, table)


def show_preset(
    session: Session,
    preset: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name or alias of a preset, or path to a YAML file.", autocompletion=complete_presets
        ),
    ],
    choice: "ModelChoice",
) -> None:
    """Print the complete configuration of a preset as YAML, validated and with --set applied."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.presets.config import parse_yaml
    from fommctl.presets.preset import load_preset, locate_preset

    host = load_host()
    found = load_preset(preset, host, sets=choice.sets)
    text = found.text()
    data: dict[str, Any] = parse_yaml(text, found.name).data
    session.result({"path": str(locate_preset(preset, host)[1]), "preset": data}, Text(text.rstrip("\n")))
