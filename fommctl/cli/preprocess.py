"""`fommctl preprocess`: a raw data set becomes the training layout."""

from typing import TYPE_CHECKING

import typer

from fommctl.cli.console import Session, counted, on_one_line
from fommctl.cli.options import command
from fommctl.errors import JobsFailedError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.preprocess.config import PreprocessConfig
    from fommctl.preprocess.run import PreprocessResult

LISTED = 10
"""Failed clips that are printed; all are in failed.jsonl and under --json."""
EXAMPLES = """Examples:

  fommctl preprocess synthetic -o data --size 64 --format png

  fommctl preprocess voxceleb vox-raw -o data/vox --preset vox --workers 8

Run the same command again to make only what is missing or has changed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.preprocess.config import PreprocessConfig

    command(app, reads={"config": PreprocessConfig}, epilog=EXAMPLES)(preprocess)


def preprocess(session: Session, config: "PreprocessConfig") -> None:
    """Cut a raw data set into square training clips, with a manifest; resumes where it stopped."""
    from fommctl.host import load_host
    from fommctl.preprocess.run import run

    with session.progress("preprocessing", unit="clips") as report:
        result = run(config, load_host(), report)
    session.summary(result.to_json(), None if session.json else _summary(result))
    if result.failed:
        raise typer.Exit(JobsFailedError.exit_code)


def _summary(result: "PreprocessResult") -> "RenderableType":
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("split", "clips", "identities", "frames", "hours", "failed", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for split, totals in result.splits.items():
        numbers = (totals.clips, totals.identities, totals.frames, f"{totals.hours:.3f}", totals.failed)
        table.add_row(split, *map(str, numbers))
    kept = f", {result.kept} already there" if result.kept else ""
    lines = [Text(f"{on_one_line(result.output)}: {counted(result.written, 'clip')} written{kept}")]
    lines += [Text(f"failed: {each['clip']}: {each['message']}", "red") for each in result.failed[:LISTED]]
    if len(result.failed) > LISTED:
        lines.append(Text(f"and {len(result.failed) - LISTED} more: see {result.output / 'failed.jsonl'}"))
    return Group(table, *lines)
