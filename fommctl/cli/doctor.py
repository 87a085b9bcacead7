"""`fommctl doctor`: will fommctl work here and fast, and if not, what is to be done?"""

from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.stages.doctor.findings import Examination

EXAMPLES = """Examples:

  fommctl doctor

  fommctl doctor --json --timeout 120
"""
STYLES = {"": "", "heading": "bold", "ok": "green", "note": "yellow", "problem": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, epilog=EXAMPLES)(doctor)


def doctor(
    session: Session,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long each group of checks may take.")
    ] = 60.0,
) -> None:
    """Tell whether fommctl works here and how fast, and what to do about each problem.

    Exit code 5 where something keeps 'fommctl animate' with the built-in model from working, else 0, also with
    problems of other kinds. The report names no user, no host and no secret: it can go into an issue as it is.
    """
    from fommctl.stages.doctor.examination import DoctorConfig, run

    examination = run(DoctorConfig(limit=timeout))
    session.result(examination.to_json(), None if session.json else _text(examination))
    if not examination.ok:
        raise typer.Exit(examination.exit_code)


def _text(examination: "Examination") -> "Text":
    import shutil

    from rich.text import Text

    from fommctl.stages.doctor.report import lines

    text = Text()
    for number, line in enumerate(lines(examination, shutil.get_terminal_size().columns)):
        text.append("\n" if number else "")
        marked = len(line.text) if line.marked is None else line.marked
        text.append(line.text[:marked], STYLES[line.style]).append(line.text[marked:])
    return text
