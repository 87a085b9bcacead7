"""`fommctl reproduce`: the comparison that the paper makes, made again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.session import DeviceOption, PrecisionOption, SeedOption, Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.stages.reproduce import ReproduceResult

EXAMPLES = """Examples:

  fommctl reproduce -o reproduction

  fommctl reproduce -o ablation --systems small-fomm,small-fomm-jacobian --steps 500 --seeds 2

  fommctl reproduce -o faces --data my-faces --benchmark voxceleb --device cuda --steps 20000

The same command again goes on where it stopped; finished trainings are not repeated.
"""


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def reproduce(
        session: Session,
        output: Annotated[
            Path,
            typer.Option("-o", "--output", help="Folder for clips, runs, scores and tables; or of an earlier run."),
        ],
        data: Annotated[
            Path | None,
            typer.Option("--data", help="Clips with train/ and test/. Default: synthetic ones, which are made."),
        ] = None,
        preset_family: Annotated[
            str, typer.Option(help="Which presets of the systems: small, taichi or vox.")
        ] = "small",
        systems: Annotated[
            str | None, typer.Option(help="Presets by name or path, with commas. Default: all of the family.")
        ] = None,
        steps: Annotated[int | None, typer.Option(min=1, help="Of each training. Default: 1000.")] = None,
        seeds: Annotated[int, typer.Option(min=1, help="Trainings of each system.")] = 3,
        metrics: Annotated[
            str | None, typer.Option(help="With commas. Default: l1.paper,akd.strict,mkr.strict,psnr,ssim.")
        ] = None,
        keypoints: Annotated[str, typer.Option(help="Whose keypoints akd and mkr compare, as for evaluate.")] = "auto",
        benchmark: Annotated[
            str, typer.Option(help="The paper's numbers to set beside: tai-chi-hd, voxceleb, nemo or bair.")
        ] = "tai-chi-hd",
        workers: Annotated[
            int | None,
            typer.Option(min=0, help="Trainings at a time, a thread each. Default: one a processor; one on a GPU."),
        ] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="[SYSTEM:]KEY=VALUE",
                help="Override a key of all presets, or of those of this name (small-fomm*:a.b=c); repeatable.",
            ),
        ] = None,
        seed: SeedOption = 0,
        device: DeviceOption = "auto",
        precision: PrecisionOption = "fp32",
    ) -> None:
        """Train FOMM, its ablations, Monkey-Net and X2Face on the same clips, score them, and set the paper beside."""
        from fommctl.host import load_host
        from fommctl.stages.reproduce import exit_code, run
        from fommctl.stages.reproduction.options import METRICS, STEPS, ReproduceConfig

        config = ReproduceConfig(
            output=output,
            data=data,
            family=preset_family,
            systems=_names(systems),
            steps=STEPS if steps is None else steps,
            seeds=seeds,
            seed=seed,
            metrics=_names(metrics) or METRICS,
            keypoints=keypoints,
            benchmark=benchmark,
            sets=tuple(set_ or ()),
            workers=workers,
            device=device,
            precision=precision,
        )
        result = run(config, load_host(), session.progress)
        session.result(result.to_json(), None if session.json else _summary(result))
        if code := exit_code(result):
            raise typer.Exit(code)


def _summary(result: "ReproduceResult") -> "RenderableType":
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    metrics = list(result.data["metrics"])
    table = Table("system", *metrics, box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for system in result.data["systems"]:
        table.add_row(system["name"], *(_cell(system["scores"][name]) for name in metrics))
    lines = [Text(f"failed: {each['system']}, seed {each['seed']}: {each['message']}", "red") for each in result.failed]
    where = Text(f"tables beside the paper's: {result.output / 'README.md'}\npages: {result.output / 'evaluation'}")
    return Group(table, *lines, where)


def _cell(score: dict[str, Any] | None) -> str:
    return "–" if score is None else f"{score['mean']:.4g}"
