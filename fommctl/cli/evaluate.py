"""`fommctl evaluate`: how good a model is, or which of several is best."""

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fommctl.cli.console import Session, counted
from fommctl.cli.options import check_there, command
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fommctl.evaluate.config import EvaluateConfig
    from fommctl.evaluate.results import Evaluation, Summary
    from fommctl.evaluate.run import EvaluateResult

LISTED = 10
"""Failed clips that are printed; all are in summary.json and under --json."""
NARROWEST = 78
"""Columns that the table needs; a narrower terminal breaks its lines."""
EXAMPLES = """Examples:

  fommctl evaluate --model vox --data data/vox -o results

  fommctl evaluate --models fomm.safetensors,monkeynet.safetensors --data data --metrics l1.paper,akd,aed -o ranking

  fommctl evaluate --data data/vox --mode animation --max-clips 20 -o pairs

  fommctl evaluate --models old.safetensors,new.safetensors --data faces --mode defaults -o across

  fommctl evaluate --pred reconstruction/png --truth data/vox/test --metrics l1,psnr,ssim -o scores --json

Run the same command again to score only what is missing or has changed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.evaluate.config import RESULT, RUN, SCORES, WHAT, EvaluateConfig

    command(app, reads={"config": EvaluateConfig}, panels=(RESULT, WHAT, SCORES, RUN), epilog=EXAMPLES)(evaluate)


def evaluate(
    session: Session,
    context: typer.Context,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="A name (see 'fommctl models list') or a file. Default: the built-in model.",
            rich_help_panel="What is evaluated",
        ),
    ] = None,
    config: "EvaluateConfig",
) -> None:
    """Score a model on the clips of a data set, or finished results against references, in tables and a report."""
    if model is not None and config.models != (None,):
        raise UsageError("--model and --models exclude each other", "Name all models in --models.")
    check_there(config.data, config.truth, config.pairs, *config.predictions)
    if model is not None:
        config = replace(config, models=(model,))
    from fommctl.evaluate.run import exit_code, run
    from fommctl.host import load_host

    line = shlex.join(["fommctl", *context.find_root().obj])
    host = load_host()
    with session.progress("evaluating") as report:
        result = run(config, host, report, commands=(line,))
    session.summary(result.to_json(), None if session.json else summary(result))
    if code := exit_code(result):
        raise typer.Exit(code)


def summary(result: "EvaluateResult") -> "RenderableType":
    """Return a table of all metrics, and what went wrong."""
    from rich.console import Group
    from rich.text import Text

    evaluation = result.evaluation
    scored = sum(frames > 0 for frames in evaluation.frames)
    kept = f"; {result.kept} already scored" if result.kept else ""
    lines = [Text(f"{evaluation.mode}: {counted(scored, 'clip')}, {counted(sum(evaluation.frames), 'frame')}{kept}")]
    failed = evaluation.failed[:LISTED]
    lines += [Text(f"failed: {each['model']}: {each['clip']}: {each['message']}", "red") for each in failed]
    if len(evaluation.failed) > LISTED:
        lines.append(Text(f"and {len(evaluation.failed) - LISTED} more: see {result.output / 'summary.json'}"))
    return Group(_table(evaluation), *lines, Text(str(evaluation.report or result.output), "bold"))


def _table(evaluation: "Evaluation") -> "Table":
    """Return a row for each metric and model, the best model first; with several, also how far each is behind
    it."""
    from rich import box, get_console
    from rich.table import Table

    several = len(evaluation.models) > 1
    table = Table(box=box.SIMPLE, pad_edge=False)
    if get_console().width < NARROWEST:
        table.width = NARROWEST
    table.add_column("metric", overflow="fold")
    # In a narrow terminal intervals are folded at their spaces, and no number is cut.
    for header in ("mean", "95% interval", *(("to the best", "95% interval") if several else ())):
        table.add_column(header, justify="right", no_wrap=header == "mean", overflow="fold")
    for header in ("frames", "cover"):
        table.add_column(header, justify="right", no_wrap=True)
    for metric, info in evaluation.metrics.items():
        name = f"{metric} {'↓' if info.lower_is_better else '↑'}"
        if several:
            table.add_row(f"{name} {info.unit}")
        ranking = evaluation.ranking(metric)
        rest = [model for model in evaluation.models if model not in ranking]
        for place, model in enumerate([*ranking, *rest]):
            found = evaluation.summary(model, metric)
            cells = [f"  {model}" if several else f"{name} {info.unit}", *_numbers(found)]
            if several:
                behind = place > 0 and model in ranking
                cells += _numbers(evaluation.difference(model, ranking[0], metric), "+") if behind else ["", ""]
            best = several and place == 0 and model in ranking
            last = place + 1 == len(evaluation.models)
            table.add_row(
                *cells,
                str(found.frames),
                f"{found.coverage:.0%}",
                style="bold" if best else None,
                end_section=several and last,
            )
    return table


def _numbers(found: "Summary", sign: str = "") -> list[str]:
    """Return the mean and its interval, with as many decimal places."""
    from fommctl.evaluate.plots import places_for

    if found.mean is None:
        return ["-", ""]
    low, high = found.ci95 or (None, None)
    places = places_for(found.mean)
    interval = "" if low is None or high is None else f"{low:{sign}.{places}f} to {high:{sign}.{places}f}"
    return [f"{found.mean:{sign}.{places}f}", interval]
