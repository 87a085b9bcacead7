"""`fommctl bench`: how fast the model runs here, and how exactly."""

from typing import TYPE_CHECKING

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.bench.config import BenchConfig
    from fommctl.bench.run import BenchResult
    from fommctl.bench.training import TrainingBenchResult

EXAMPLES = """Examples:

  fommctl bench

  fommctl bench --preset taichi --frames 48 --json

  fommctl bench --device cuda --precision bf16 --batch-size 64

  fommctl bench --train --preset vox
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    from fommctl.bench.config import BenchConfig

    command(app, reads={"config": BenchConfig}, epilog=EXAMPLES)(bench)


def bench(session: Session, config: "BenchConfig") -> None:
    """Measure the fast paths against the plain loop of the published code, interleaved, with random weights."""
    from fommctl.bench import run, training
    from fommctl.bench.run import measure

    with session.progress("bench") as report:
        if config.train:
            trained = training.run(config, report=report)
        else:
            result = run.run(config, end_to_end=measure, report=report)
    if config.train:
        return session.result(trained.to_json(), _training_table(trained))
    session.result(result.to_json(), _table(result))


def _table(result: "BenchResult") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("path", "frames/s", "ratio", "largest error", "mean error"):
        table.add_column(heading, justify="left" if heading == "path" else "right")
    for name, path in result.paths.items():
        errors = ("", "") if name == "plain" else (f"{path.error_max:.1e}", f"{path.error_mean:.1e}")
        table.add_row(name, f"{path.frames_per_second:.2f}", f"{path.ratio:.2f}", *errors)
    threads = f"{result.threads} threads, " if result.device == "cpu" else ""
    lines = [
        f"{result.preset} on {result.device}, {threads}batches of {result.batch_size}; "
        f"--precision auto is {result.auto_precision} here",
    ]
    after = []
    if result.shares:
        told = ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items())
        after.append(f"share of the plain loop: {told}")
    if result.end_to_end is not None:
        end = result.end_to_end
        after.append(
            f"end to end: {end.frames_per_second:.2f} frames/s, {end.of_model_rate:.0%} of the model's own rate "
            f"({end.of_model_rate_720p:.0%} with a 720p driving video)"
        )
    if result.peak_memory_mb is not None:
        after.append(f"peak memory: {result.peak_memory_mb:.0f} MB")
    return Group(*map(Text, lines), table, *map(Text, after))


def _training_table(result: "TrainingBenchResult") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("path", "samples/s", "ratio", "loss deviation"):
        table.add_column(heading, justify="left" if heading == "path" else "right")
    for name, path in result.paths.items():
        deviation = "" if name == "plain" else f"{path.loss_deviation:.1%}"
        table.add_row(name, f"{path.samples_per_second:.2f}", f"{path.ratio:.2f}", deviation)
    threads = f"{result.threads} threads, " if result.device == "cpu" else ""
    line = (
        f"training {result.preset} on {result.device}, {threads}batches of {result.batch_size}, "
        f"perceptual network {result.perceptual_network}; --precision auto is {result.auto_precision} here"
    )
    slower = [name for name, path in result.paths.items() if path.ratio < 1 and name != "plain"]
    after = [f"{name} is slower than plain fp32 here: train with --precision fp32" for name in slower]
    return Group(Text(line), table, *map(Text, after))
