"""What a reproduction found, as plain data: ours, the paper's, and how the two compare."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from fommctl import __version__
from fommctl.stages.reproduction.options import ReproduceConfig
from fommctl.stages.reproduction.paper import CHECKED, CLAIMS, COLUMNS, PAPER, Benchmark, Column, row_of
from fommctl.stages.reproduction.standings import Score, Standings
from fommctl.stages.reproduction.training import TrainingJob

Comparison = Literal["better", "worse", "equal", "undecided"]
_NAMES = {"output": "-o", "family": "--preset-family", "sets": "--set"}
_LISTS = ("systems", "metrics")


@dataclass(frozen=True, slots=True)
class Network:
    """What is trained under the name of a system."""

    backend: str
    parameters: int
    """Of the networks that animate; those for training alone do not count."""
    frame_side: int
    """Height of its frames in pixels."""


def results(
    config: ReproduceConfig,
    standings: Standings,
    jobs: Sequence[TrainingJob],
    networks: Mapping[str, Network],
    seconds: float,
) -> dict[str, Any]:
    """JSON values.

    jobs: the finished trainings.  networks: of each system.  seconds: of this call.
    """
    import torch

    benchmark = cast("Benchmark", config.benchmark)
    return {
        "command": command(config),
        "settings": config.to_json(),
        "made_with": {
            "fommctl": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "seconds": round(seconds, 1),
        "clips": len(standings.clips),
        "metrics": {
            name: {"summary": info.summary, "unit": info.unit, "lower_is_better": info.lower_is_better}
            for name, info in standings.metrics.items()
        },
        "systems": [_system(name, standings, jobs, networks) for name in standings.systems],
        "order": {metric: list(standings.order(metric)) for metric in standings.metrics},
        "paper": _paper(benchmark),
        "claims": list(_claims(standings, benchmark)),
    }


def command(config: ReproduceConfig) -> str:
    """The command line that makes this reproduction."""
    words = ["fommctl", "reproduce", "-o", str(config.output)]
    defaults = ReproduceConfig(output=config.output)
    for field in fields(config):
        value, name = getattr(config, field.name), _NAMES.get(field.name, f"--{field.name}")
        if value == getattr(defaults, field.name):
            continue
        if field.name == "sets":
            words += [word for text in value for word in (name, text)]
        else:
            words += [name, ",".join(value) if field.name in _LISTS else str(value)]
    return shlex.join(words)


def _system(
    name: str, standings: Standings, jobs: Sequence[TrainingJob], networks: Mapping[str, Network]
) -> dict[str, Any]:
    own = [job for job in jobs if job.name == name]
    return {
        "name": name,
        "row": row_of(name),
        **asdict(networks[name]),
        "seeds": [job.seed for job in own],
        "training_seconds": [job.record()["seconds"] for job in own],
        "scores": {metric: _plain(standings.score(name, metric)) for metric in standings.metrics},
    }


def _plain(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {key: _listed(value) for key, value in asdict(score).items()}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _paper(benchmark: Benchmark) -> dict[str, Any]:
    checked = [{"row": row, "column": column} for where, row, column in sorted(CHECKED) if where == benchmark]
    return {
        "benchmark": benchmark,
        "rows": {row: dict(values) for row, values in PAPER[benchmark].items()},
        "checked": checked,
    }


def column_of(metric: str) -> Column | None:
    """The column of the paper that is of the metric's kind, whatever the variant."""
    family = metric.partition(".")[0].upper()
    return next((column for column in COLUMNS if column == family), None)


def _claims(standings: Standings, benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    """Every claim by every metric, for the systems that were trained."""
    systems = {row: name for name in standings.systems if (row := row_of(name)) is not None}
    for claim in CLAIMS:
        if claim.better not in systems or claim.worse not in systems:
            continue
        better, worse = systems[claim.better], systems[claim.worse]
        for metric in standings.metrics:
            yield {
                "better": better,
                "worse": worse,
                "metric": metric,
                "difference": _plain(standings.difference(better, worse, metric)),
                "ours": standings.verdict(better, worse, metric),
                "paper": _in_the_paper(benchmark, claim.better, claim.worse, metric),
            }


def _in_the_paper(benchmark: Benchmark, better: str, worse: str, metric: str) -> Comparison | None:
    """What the paper's numbers say of two of its rows; None where it has none. Lower is better in all its columns."""
    column, rows = column_of(metric), PAPER[benchmark]
    if column is None or better not in rows or worse not in rows or column not in rows[better]:
        return None
    one, other = rows[better][column], rows[worse][column]
    return "equal" if one == other else "better" if one < other else "worse"
