"""`fommctl train`: a model from a folder of clips."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.session import DeviceOption, PrecisionOption, SeedOption, Session, SetOption, command

if TYPE_CHECKING:
    from fommctl.train.run import TrainResult

EXAMPLES = """Examples:

  fommctl train --preset vox --data vox-png --out runs/vox

  fommctl train --preset vox --data vox-png --out runs/vox --resume auto --max-time 3600

  fommctl train --preset faces-mini --data my-faces --init-from faces-mini --max-steps 2000

  torchrun --nproc-per-node 4 -m fommctl train --preset vox-adv --data vox-png --out runs/vox-adv
"""


def _seconds(text: str) -> float:
    """Seconds, or a number with s, m, h or d behind it."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"'{text}' is no length of time: write 90, 45m, 2h or 1.5d")
    return seconds


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def train(
        session: Session,
        preset: Annotated[str, typer.Option("--preset", help="Configuration, by name or path.")],
        data: Annotated[
            Path, typer.Option("--data", help="Clips: train/ and test/ as preprocess writes them, or any folder.")
        ],
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/PRESET where none is given.")
        ] = None,
        resume: Annotated[
            str | None,
            typer.Option(
                help="Go on: 'auto' from the newest checkpoint in --out (anew where there is none), or a path."
            ),
        ] = None,
        init_from: Annotated[
            str | None, typer.Option(help="Model to start from: every tensor that fits is taken.", metavar="MODEL")
        ] = None,
        max_steps: Annotated[int | None, typer.Option(min=1, help="End after so many steps in all.")] = None,
        max_time: Annotated[
            float | None,
            typer.Option(parser=_seconds, metavar="TIME", help="Save and end after this long: 90, 45m, 2h."),
        ] = None,
        workers: Annotated[int, typer.Option(min=0, help="Processes that decode and augment, for each GPU.")] = 1,
        pictures_every: Annotated[int, typer.Option(min=0, help="Steps between picture grids; 0 for none.")] = 500,
        keep: Annotated[int, typer.Option(min=1, help="Checkpoints to keep, beside the best.")] = 3,
        set_: SetOption = None,
        seed: SeedOption = 0,
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
    ) -> None:
        """Train a model into a run folder with checkpoints, metrics, curves and pictures, resumable at any moment."""
        from fommctl.cli.training_progress import training_progress
        from fommctl.host import load_host
        from fommctl.train.config import TrainConfig
        from fommctl.train.distributed import join
        from fommctl.train.run import run, unobserved

        config = TrainConfig(
            preset=preset,
            data=data,
            out=out or Path("runs") / Path(preset).stem,
            resume=resume,
            init_from=init_from,
            max_steps=max_steps,
            max_time=max_time,
            device=device,
            precision=precision,
            seed=seed or 0,
            sets=tuple(set_ or ()),
            workers=workers,
            pictures_every=pictures_every,
            keep=keep,
        )
        with join(device) as processes:
            if not processes.first:
                # All processes meet the same warnings; one tells them.
                logging.getLogger("fommctl").setLevel(logging.ERROR)
            result = run(
                config,
                load_host(),
                processes=processes,
                observe=lambda total, first: (
                    training_progress(session, total, first_step=first) if processes.first else unobserved(total, first)
                ),
            )
        if processes.first:
            session.result(result.to_json(), _text(result))


def _text(result: "TrainResult") -> str:
    if result.model is None:
        return f"stopped after {result.steps} steps: go on with --resume auto\ncheckpoint: {result.checkpoint}"
    return f"done after {result.steps} steps\nmodel: {result.model}"
