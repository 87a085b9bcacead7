"""`fommctl animate`: the main job; with --from-sidecar, a result is rendered again and compared."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session, counted, on_one_line
from fommctl.cli.options import check_there, command
from fommctl.errors import JobsFailedError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.animate.config import AnimateConfig, ModelChoice
    from fommctl.animate.recording import AnimateResult
    from fommctl.animate.rerender import Comparison

EXAMPLES = """Examples:

  fommctl animate portrait.jpg talk.mp4

  fommctl animate portrait.png talk.mov -o shot.mov --best-frame auto

  fommctl animate face.png face.mp4 --crop none --model vox-256.pth.tar -o frames/%05d.png

  fommctl animate portrait.jpg talk.mp4 --start 3 --end 8.5 --compare --json

  fommctl animate portrait.jpg talk.mp4 --motion-out talk.motion

  fommctl animate other.jpg talk.motion -o frames/%05d.png --frames 101-200

  fommctl animate portrait.jpg talk.mp4 -o shot.mov --sidecar

  fommctl animate --from-sidecar shot.mov.json -o again.mov
"""
PANELS = ("Result", "Model", "Motion", "Framing", "Post-production", "Provenance")
BESIDE_A_SIDECAR = ("source", "driving", "views", "output", "overwrite", "sidecar", "model", "device")
"""Options that may be given beside --from-sidecar: all others are in the sidecar."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.animate.config import AnimateConfig, ModelChoice

    reads = {"choice": ModelChoice, "config": AnimateConfig}
    command(app, reads=reads, panels=PANELS, unless="from_sidecar", epilog=EXAMPLES)(animate)


def animate(
    session: Session,
    choice: "ModelChoice",
    config: "AnimateConfig",
    from_sidecar: Annotated[
        Path | None,
        typer.Option(
            help="Render the result that this sidecar describes again, and compare bit for bit. If the inputs have "
            "moved, give their new paths as SOURCE and DRIVING.",
            rich_help_panel="Provenance",
        ),
    ] = None,
) -> None:
    """Animate a still image with the motion of a video."""
    if from_sidecar is not None:
        return _again(session, from_sidecar, choice, config)
    check_there(*config.inputs)
    from fommctl.animate.animator import load
    from fommctl.animate.plan import check_outputs
    from fommctl.animate.run import run

    check_outputs(config)
    animator = load(**asdict(choice))
    with session.progress("animating") as report:
        result = run(config, animator, report, report.phase)
    session.summary(result.to_json(), summary(result))


def _again(session: Session, path: Path, choice: "ModelChoice", config: "AnimateConfig") -> None:
    """Render what the sidecar at `path` describes. Raises JobsFailedError where the result differs and nothing in the
    environment explains it."""
    _refuse_other_options(config, choice)
    from fommctl.animate.plan import check_outputs
    from fommctl.animate.rerender import load, plan, render

    again = plan(
        path,
        source=None if config.source == Path() else config.source,
        driving=None if config.driving == Path() else config.driving,
        views=config.views,
        output=config.output,
        overwrite=config.overwrite,
        sidecar=config.sidecar,
    )
    check_outputs(again.config)
    animator = load(again, model=choice.model, device=None if choice.device == "auto" else choice.device)
    with session.progress("animating") as report:
        result, comparison = render(again, animator, report)
    if not comparison.identical and not comparison.differences:
        raise JobsFailedError(
            f"{result.output} differs from the recorded result, although versions and processor are the same",
            "The sidecar was changed, or this device does not compute reproducibly.",
        )
    session.summary({**result.to_json(), "reproduction": comparison.to_json()}, _compared(result, comparison))


def _refuse_other_options(config: "AnimateConfig", choice: "ModelChoice") -> None:
    from fommctl.options import option_fields

    for each in (config, choice):
        for field in fields(each):
            if field.name not in BESIDE_A_SIDECAR and getattr(each, field.name) != field.default:
                raise UsageError(
                    f"{option_fields(type(each))[field.name].flag} and --from-sidecar exclude each other",
                    "With a sidecar, only SOURCE, DRIVING, --view, -o, --overwrite, --sidecar, --model and --device "
                    "may be given.",
                )


def summary(result: "AnimateResult") -> "Text":
    """Return what was written and how fast."""
    from rich.text import Text

    sound = f", sound {result.audio}" if result.audio else ""
    rate = result.end_to_end_rate
    speed = f"{rate:.1f} frames/s" if rate >= 1 else f"{1 / rate:.1f} s/frame"
    return Text.assemble(
        (on_one_line(result.output), "bold"),
        f"\n{counted(result.frames, 'frame')}, {result.width}x{result.height}, {float(result.fps):.3f} fps{sound}; "
        f"model {result.model}; {speed} on {result.device} ({result.precision})",
    )


def _compared(result: "AnimateResult", comparison: "Comparison") -> "Text":
    from rich.text import Text

    if comparison.identical:
        said = ("\nidentical to the recorded result, bit for bit", "green")
    else:
        said = ("\nnot identical to the recorded result: the environment differs", "yellow")
    return Text.assemble(summary(result), said, *(f"\n  {line}" for line in comparison.differences))
