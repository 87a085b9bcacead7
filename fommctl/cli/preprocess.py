"""`fommctl preprocess`: a raw data set becomes the training layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.session import Session, command
from fommctl.errors import JobsFailedError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.preprocess.run import PreprocessResult

CLIPS, RUN = "Clips", "Run"
LISTED = 10
"""Failed clips that are printed; all are in failed.jsonl and under --json."""
EXAMPLES = """Examples:

  fommctl preprocess synthetic -o data --size 64 --format png

  fommctl preprocess voxceleb vox-raw -o data/vox --preset vox --workers 8

The same command again makes only what is missing or was changed.
"""


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def preprocess(
        session: Session,
        dataset: Annotated[str, typer.Argument(help="The data set's adapter, by name (see 'fommctl plugins list').")],
        output: Annotated[
            Path,
            _option(CLIPS, "Folder for train/, test/ and manifest.jsonl; new, or of an earlier run.", "-o", "--output"),
        ],
        raw: Annotated[
            Path | None, typer.Argument(help="Folder with the raw data; none for data sets that make their own.")
        ] = None,
        format: Annotated[str, _option(CLIPS, "mp4, mov, mkv, webm, gif, or png for folders of frames.")] = "mp4",
        size: Annotated[
            int | None, _option(CLIPS, "Side of the square frames in pixels. Default: the preset's, else 256.")
        ] = None,
        preset: Annotated[
            str | None, _option(CLIPS, "Preset to prepare for: its frame size.", "--preset", "-p")
        ] = None,
        fit: Annotated[
            str,
            _option(
                CLIPS,
                "What is no square: pad takes in what is around it (beyond the picture its border), crop its "
                "middle, stretch all of it out of shape.",
            ),
        ] = "pad",
        deinterlace: Annotated[
            str,
            _option(
                CLIPS,
                "Interlaced footage: auto makes whole pictures at its frame rate, field at twice that, one a field; "
                "off leaves it woven.",
            ),
        ] = "auto",
        audio: Annotated[bool, _option(CLIPS, "Keep the sound where there is some.", "--audio/--no-audio")] = True,
        test_fraction: Annotated[
            float, _option(CLIPS, "Share of the identities to test on, where the data set does not say.")
        ] = 0.1,
        seed: Annotated[int, _option(CLIPS, "Chooses among those identities.")] = 0,
        workers: Annotated[int | None, _option(RUN, "Processes. Default: one a processor.")] = None,
        limit: Annotated[int | None, _option(RUN, "Only so many clips from the first on.")] = None,
        verify: Annotated[bool, _option(RUN, "Read what is there already and compare hashes, not only sizes.")] = False,
    ) -> None:
        """Cut a raw data set into square training clips, with a manifest; goes on where it stopped."""
        from fommctl.host import load_host
        from fommctl.preprocess.run import PreprocessConfig, run

        host = load_host()
        config = PreprocessConfig(
            dataset=dataset,
            raw=raw,
            output=output,
            format=format.lower(),
            size=_preset_size(preset, host) if size is None else size,
            fit=fit,  # type: ignore[arg-type]  # checked by PreprocessConfig
            deinterlace=deinterlace,  # type: ignore[arg-type]
            audio=audio,
            test_fraction=test_fraction,
            seed=seed,
            workers=workers,
            limit=limit,
            verify=verify,
        )
        with session.progress("preprocessing", unit="clips") as report:
            result = run(config, host, report)
        session.summary(result.to_json(), None if session.json else _summary(result))
        if result.failed:
            raise typer.Exit(JobsFailedError.exit_code)


def _preset_size(preset: str | None, host: Any) -> int:
    if preset is None:
        return 256
    from fommctl.presets.preset import load_preset

    height, width, _ = load_preset(preset, host).frame_shape
    if height != width:
        raise UsageError(f"the frames of preset '{preset}' are no squares: {width}x{height}", "Give --size.")
    return height


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
    kept = f", {result.kept} were there already" if result.kept else ""
    lines = [Text(f"{result.output}: {result.written} clips written{kept}")]
    lines += [Text(f"failed: {each['clip']}: {each['message']}", "red") for each in result.failed[:LISTED]]
    if len(result.failed) > LISTED:
        lines.append(Text(f"and {len(result.failed) - LISTED} more: see {result.output / 'failed.jsonl'}"))
    return Group(table, *lines)
