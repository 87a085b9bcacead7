"""`fommctl crop`: finds subjects, follows them, cuts square clips."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fommctl.cli.console import Session, counted, on_one_line
from fommctl.cli.options import command

if TYPE_CHECKING:
    from fommctl.crop.config import CropConfig
    from fommctl.crop.run import CropResult

EXAMPLES = """Examples:

  fommctl crop interview.mp4 -o clips

  fommctl crop raw/ "more/*.mov" -o clips --min-duration 2 --workers 4

  fommctl crop talk.mp4 --dry-run

Clips are named NAME#track0.mp4, NAME#track1.mp4, ...; in training, NAME counts as the identity.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.crop.config import CropConfig

    command(app, reads={"config": CropConfig}, epilog=EXAMPLES)(crop)


def crop(session: Session, config: "CropConfig") -> None:
    """Cut every subject out of videos and pictures: square clips with sound, for training and animation.

    A second run resumes where the first one stopped: sources whose clips are up to date are skipped.
    """
    from fommctl.crop.run import run
    from fommctl.host import load_host

    single = len(config.inputs) == 1 and Path(config.inputs[0]).is_file()
    with session.progress("cropping", "frames" if single else "files") as report:
        result = run(config, load_host(), report)
    error = result.error()
    if error is None:
        session.summary(result.to_json(), _summary(result, config))
        return
    # What was done counts too: the whole result is printed, with the error in it.
    body = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    session.result({**result.to_json(), "error": body}, _summary(result, config))
    if not session.json:
        raise error
    raise typer.Exit(error.exit_code)


def _summary(result: "CropResult", config: "CropConfig") -> str:
    lines = []
    for clip in result.clips:
        left, top, right, _ = clip["box"]
        times = f"{clip['start']:.3f}-{clip['end']:.3f} s  " if clip["fps"] else ""
        what = f"{times}crop {left},{top},{right - left}  score {clip['score']:.2f}"
        what += f"  face {clip['face']}" if clip.get("face") else ""
        what += "" if config.dry_run else f"  -> {Path(clip['output']).name}"
        lines.append(f"{on_one_line(clip['source'])}: {what}")
        lines += [f"  {on_one_line(clip['command'])}"] if "command" in clip else []
    unseen = f"no {result.subject}, or not for long enough"
    lines += [f"{unseen}: {on_one_line(source)}" for source in result.without_subject]
    lines += [f"failed: {on_one_line(each.source)}: {on_one_line(each.message)}" for each in result.failed]
    count = counted(len(result.clips), "clip")
    up_to_date = f"; {counted(len(result.skipped), 'input')} already up to date" if result.skipped else ""
    where = " found" if config.dry_run else f" in {on_one_line(config.output)}"
    return "\n".join([*lines, f"{count}{where}{up_to_date}"])
