"""`fommctl doctor`: does fommctl work here and fast, and if not, what is to be done?"""

from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command

if TYPE_CHECKING:
    from rich.console import Group

    from fommctl.doctor.report import Report

EXAMPLES = """Examples:

  fommctl doctor

  fommctl doctor --json --timeout 120
"""
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""

    command(app, epilog=EXAMPLES)(doctor)


def doctor(
    session: Session,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long each check may take.")] = 60.0,
) -> None:
    """Tell whether fommctl works here and how fast, and what to do about each problem.

    Exit code 5 where something keeps 'fommctl animate' with the built-in model from working, else 0, also with
    problems of other kinds. The report names no user, no host and no secret: it can go into an issue as it is.
    """
    from fommctl.doctor.run import run

    report = run(timeout)
    session.result(report.to_json(), None if session.json else _text(report))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _text(report: "Report") -> "Group":
    """Show a table by area, then what to do about each problem."""
    import itertools

    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table | Padding] = []
    for area, rows in itertools.groupby(report.rows, key=lambda row: row.area):
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(min_width=7, no_wrap=True)
        table.add_column(min_width=18, max_width=18, overflow="fold")
        table.add_column(overflow="fold")
        for row in rows:
            value = Text(row.value)
            if row.level == "note" and row.advice:
                value.append(f"\n-> {row.advice}", STYLES["note"])
            mark = "PROBLEM" if row.level == "problem" else row.level
            table.add_row(Text(mark, STYLES[row.level]), Text(row.name), value)
        parts += [Text(area, "bold"), Padding.indent(table, 2)]
    parts.append(Text(f"\n{report.verdict}", STYLES["problem" if report.exit_code else "ok"]))
    for number, row in enumerate(report.problems, start=1):
        parts.append(Text(f"{number}. {row.area}, {row.name}: {row.value}", STYLES["problem"]))
        parts += [Text(f"   -> {row.advice}")] if row.advice else []
    return Group(*parts)
