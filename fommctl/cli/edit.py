"""`fommctl edit`: a portrait changes by numbers, without a driving video."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import check_there, command

if TYPE_CHECKING:
    from fommctl.animate.config import ModelChoice
    from fommctl.edit.config import EditConfig

EXAMPLES = """Examples:

  fommctl edit portrait.jpg -O smile=0.5,yaw=10 -o out.png --model liveportrait.pth

  fommctl edit portrait.jpg --curves wink.csv -o wink.mp4 --model liveportrait.pth
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.animate.config import ModelChoice
    from fommctl.edit.config import EditConfig

    reads = {"choice": ModelChoice, "config": EditConfig}
    command(app, reads=reads, panels=("Model",), epilog=EXAMPLES)(edit)


def edit(session: Session, choice: "ModelChoice", config: "EditConfig") -> None:
    """Edit a portrait without a driving video: turn the head, smile, blink; as a picture, or over time."""
    check_there(config.source, *(() if config.curves is None else (config.curves,)))
    from fommctl.animate.animator import load
    from fommctl.cli.animate import summary
    from fommctl.edit.run import run

    animator = load(**asdict(choice))
    with session.progress("editing") as report:
        result = run(config, animator, report)
    session.summary(result.to_json(), summary(result))
