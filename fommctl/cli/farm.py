"""`fommctl farm`: a shot for a render farm, and the tasks that the farm runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import check_there, command

if TYPE_CHECKING:
    from fommctl.animate.animator import Animator
    from fommctl.animate.config import AnimateConfig, ModelChoice
    from fommctl.farm.config import FarmConfig
    from fommctl.farm.emit import FarmFiles
    from fommctl.farm.shot import FarmShot
    from fommctl.farm.tasks import FarmJob, TaskResult

HELP = "Render one shot on a farm: OpenJD, OpenCue, Deadline, Slurm, Flamenco."
EXAMPLES = """Examples:

  fommctl farm emit portrait.png talk.mp4 --engine slurm --chunk 100 --result shot.mov -o jobs/shot

  fommctl farm emit portrait.png talk.mp4 --engine openjd --result 'shot/shot.%05d.png' -o jobs/shot

The folder contains what the engine submits. There are three kinds of task: the motion of the driving video is computed
once, chunks of frames are rendered in any order, and at the end they are encoded as a movie. On identical machines the
result is bit for bit that of animate. Every machine needs this tool on its PATH, and access to the folder, the inputs
and the output under the same paths, or under those of --path-mapping.
"""
FolderArgument = Annotated[Path, typer.Argument(help="Folder written by 'farm emit'.", metavar="FOLDER")]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        "--path-mapping", help="File of rules that map the job's paths to this machine, in OpenJD's pathmapping-1.0."
    ),
]


def register(app: typer.Typer) -> None:
    """Add `farm` and its subcommands to `app`."""
    from fommctl.animate.config import AnimateConfig, ModelChoice, option_names
    from fommctl.farm.config import FarmConfig

    farm = typer.Typer(help=HELP, epilog=EXAMPLES, no_args_is_help=True)
    app.add_typer(farm, name="farm")
    shown = tuple(name for name in option_names() if name not in ("output", "compare", "keypoints"))
    command(
        farm,
        "emit",
        reads={"choice": ModelChoice, "config": (AnimateConfig, *shown), "farm": FarmConfig},
        panels=("Farm", "Result", "Model", "Motion", "Framing", "Post-production", "Provenance"),
        epilog=EXAMPLES,
    )(emit)
    command(farm, "motion", epilog="Example: fommctl farm motion jobs/shot")(motion)
    command(farm, "render", epilog="Example: fommctl farm render jobs/shot --frames 51-100")(render)
    command(farm, "encode", epilog="Example: fommctl farm encode jobs/shot")(encode)


def emit(session: Session, farm: FarmConfig, choice: ModelChoice, config: AnimateConfig) -> None:
    """Write what a farm engine submits for one shot; takes the options of animate."""
    check_there(*config.inputs)
    from fommctl.farm.emit import emit

    files = emit(config, choice, farm)
    session.summary(files.to_json(), _written(files))


def motion(session: Session, folder: FolderArgument, path_mapping: MappingOption = None) -> None:
    """Plan a shot and compute the motion of its driving video: its first task."""
    job = _job(folder, path_mapping)
    _do(session, "detecting motion", lambda report: job.make_motion(_load, report))


def render(
    session: Session,
    folder: FolderArgument,
    frames: Annotated[
        str, typer.Option("--frames", help="Driving frames, such as 51-100; may extend past the last frame.")
    ],
    path_mapping: MappingOption = None,
) -> None:
    """Render a chunk of a shot's frames; any number of these tasks can run at once."""
    job = _job(folder, path_mapping)
    _do(session, f"rendering frames {frames}", lambda report: job.render(frames, _load, report))


def encode(session: Session, folder: FolderArgument, path_mapping: MappingOption = None) -> None:
    """Encode the frames of a shot as a movie: its last task."""
    job = _job(folder, path_mapping)
    _do(session, "encoding", lambda report: job.encode(_load, report))


def _job(folder: Path, path_mapping: Path | None) -> FarmJob:
    check_there(folder)
    from fommctl.farm.tasks import FarmJob

    return FarmJob.open(folder, path_mapping)


def _load(shot: FarmShot) -> Animator:
    from fommctl.animate.animator import load

    return load(**asdict(shot.choice))


def _do(session: Session, label: str, task: Callable[[Callable[[int, int | None], None]], TaskResult]) -> None:
    with session.progress(label) as report:
        result = task(report)
        report(1, 1)
    made = "was there already" if result.kept else "done"
    session.summary(result.to_json(), f"{result.task}: {result.frames} frames, {made}: {result.output}")


def _written(files: FarmFiles) -> str:
    steps = f"motion, {files.chunks} chunk{'' if files.chunks == 1 else 's'} of frames {files.frames}"
    submit = "\n".join(f"submit: {line}" for line in files.submit)
    return f"{files.folder}: {steps}{', encode' if files.encodes else ''}\n{submit}"
