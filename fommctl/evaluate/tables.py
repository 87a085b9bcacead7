"""What is written beside the page: `metrics.csv`, `summary.json` and `configuration.yaml`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

from fommctl.evaluate.results import Evaluation
from fommctl.files import atomic_write, write_text
from fommctl.presets.config import dump_yaml

CSV, SUMMARY, CONFIGURATION = "metrics.csv", "summary.json", "configuration.yaml"
_HINT = "Free some space, or write elsewhere with -o."


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """All three, each all or nothing. Raises OutputError."""
    with (
        atomic_write(folder / CSV, hint=_HINT) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows(evaluation))
    write_summary(evaluation, folder)
    write_text(folder / CONFIGURATION, dump_yaml(evaluation.configuration))


def write_summary(evaluation: Evaluation, folder: Path) -> None:
    """What --json prints, and the configuration."""
    data = {**evaluation.to_json(), "configuration": dict(evaluation.configuration)}
    write_text(folder / SUMMARY, f"{json.dumps(data, indent=2, allow_nan=False)}\n")


def rows(evaluation: Evaluation) -> Iterator[list[str]]:
    """A header, and for each model and clip a row of the whole clip (no frame number) and one for each frame; cells
    without a score are empty."""
    metrics = list(evaluation.metrics)
    yield ["model", "clip", "frame", *metrics]
    for model in evaluation.models:
        of_metrics = [evaluation.clip_scores(model, metric) for metric in metrics]
        for number, clip in enumerate(evaluation.clips):
            scores = [each[number] for each in of_metrics]
            if all(one is None for one in scores):
                continue
            yield [model, clip, "", *(_cell(None if one is None else one.value) for one in scores)]
            for frame in range(evaluation.frames[number]):
                cells = [None if one is None or frame >= len(one.frames) else one.frames[frame] for one in scores]
                yield [model, clip, str(frame), *map(_cell, cells)]


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))
