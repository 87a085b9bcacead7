"""Writes the files of an evaluation: report.html with numbers, plots and videos, and tables.

The page has no scripts and makes no requests, which its Content-Security-Policy enforces. Its numbers are `<data>`
elements with `data-metric`, `data-model` and `data-field`, and the exact number as `value`.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl import __version__
from fommctl.api.specs import MetricSpec
from fommctl.evaluate.keypoint_sources import MODEL
from fommctl.evaluate.plots import MOST_DOTS, Curves, Distribution, curves, distribution, places_for, printed
from fommctl.evaluate.results import Evaluation, Summary
from fommctl.evaluate.videos import ShownClip, embedded_videos, shown_clips, shown_keypoints
from fommctl.files import atomic_write, write_csv, write_text
from fommctl.presets.config import dump_yaml

CSV, SUMMARY, CONFIGURATION = "metrics.csv", "summary.json", "configuration.yaml"
_HINT = "Free some space, or write elsewhere with -o."


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write metrics.csv, summary.json and configuration.yaml, each atomically. Raises OutputError."""
    with (
        atomic_write(folder / CSV, hint=_HINT) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write_csv(file, rows(evaluation))
    data = {**evaluation.to_json(), "configuration": dict(evaluation.configuration)}
    write_text(folder / SUMMARY, f"{json.dumps(data, indent=2, allow_nan=False)}\n")
    write_text(folder / CONFIGURATION, dump_yaml(evaluation.configuration))


def rows(evaluation: Evaluation) -> Iterator[list[str | int | float | None]]:
    """Yield a header, and for each model and clip a row for the clip (without frame number) and one for each frame.

    Cells without a score are None.
    """
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
                yield [model, clip, frame, *map(_cell, cells)]


def _cell(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


_LIBRARIES = ("torch", "numpy", "av")
_MODES = {
    "reconstruction": "Reconstruction: the first frame of each clip is driven by the clip itself.",
    "animation": "Animation across identities: the first frame of one clip is driven by another clip.",
    "defaults": "Animation across identities as fommctl animate does it by default: subjects are found and cropped, "
    "results are pasted back into the source picture.",
    "files": "Finished results against their references.",
}
_COLUMNS = {
    "reconstruction": ("source", "truth"),
    "animation": ("source", "driving video"),
    "defaults": ("source", "driving video"),
    "files": ("truth",),
}
"""Columns to the left of the models in side-by-side videos."""


@dataclass(frozen=True, slots=True)
class ModelRank:
    """A model's place and scores by one metric."""

    model: int
    """Index among the models."""
    name: str
    summary: Summary
    behind_best: Summary | None
    """This model's mean minus the best model's, over clips scored for both; None for the best model and without a
    score."""
    bar: tuple[float, float, float] | None
    """Lower end of the interval, mean and upper end, in percent of the range of all models."""


@dataclass(frozen=True, slots=True)
class MetricView:
    """One metric on the page."""

    name: str
    spec: MetricSpec
    places: int
    """Decimal places of its means."""
    standings: tuple[ModelRank, ...]
    """Models in order of this metric, those without a score last."""
    pairs: tuple[tuple[str, str, Summary], ...]
    """Pairs of models, with the difference of the first minus the second."""
    distribution: Distribution | None
    """Distribution over clips; None if single clips have no values."""
    curves: tuple[Curves | None, ...]
    """Curves of each shown clip; None if its frames have no scores."""


def write_report(
    evaluation: Evaluation,
    videos: Mapping[str, Path],
    path: Path,
    *,
    commands: Sequence[str] = (),
    made: datetime | None = None,
) -> None:
    """Write the page, atomically.

    videos: side-by-side WebM files by clip; those of the best, the median and the worst clip are embedded, shortened if
    they are large (see `embedded_video`).  commands: command lines that repeat the evaluation.  made: time of the
    evaluation; None for now.  Raises OutputError, and InputError if a video cannot be read.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fommctl.evaluate", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printed"] = printed
    content = _content(evaluation, videos, made or datetime.now(UTC))
    write_text(path, environment.get_template("report.html").render(content, commands=tuple(commands)))


def _content(evaluation: Evaluation, videos: Mapping[str, Path], made: datetime) -> dict[str, Any]:
    models = evaluation.models
    order, shown = shown_clips(evaluation)
    options, keypoints = evaluation.configuration.get("options", {}), evaluation.configuration.get("keypoints")
    metrics = [_metric(evaluation, name, shown) for name in evaluation.metrics]
    return {
        "title": f"Evaluation of {models[0]}" if len(models) == 1 else f"{enumerated(models)} compared",
        "mode": _MODES[evaluation.mode],
        "columns": enumerated([*_COLUMNS[evaluation.mode], *models]),
        "data": options.get("data") or options.get("truth"),
        "made": made.astimezone(UTC),
        "evaluation": evaluation,
        "several": len(models) > 1,
        "reference": _COLUMNS[evaluation.mode][-1],
        "own_keypoints": shown_keypoints(keypoints, finished=evaluation.mode == "files") == MODEL,
        "compared": sum(frames > 0 for frames in evaluation.frames),
        "metrics": metrics,
        "plotted": [metric for metric in metrics if metric.distribution or any(metric.curves)],
        "order": order,
        "shown": shown,
        "videos": embedded_videos(evaluation, shown, videos),
        "clip_values": {one.clip: _clip_values(evaluation, one.clip) for one in shown},
        "most_dots": MOST_DOTS,
        "versions": _versions(),
        "configuration": json.dumps(evaluation.configuration, indent=2, ensure_ascii=False, default=str),
    }


def _metric(evaluation: Evaluation, name: str, shown: Sequence[ShownClip]) -> MetricView:
    summaries = {model: evaluation.summary(model, name) for model in evaluation.models}
    spec = evaluation.metrics[name]
    sign = 1 if spec.lower_is_better else -1
    scored = {model: one.mean for model, one in summaries.items() if one.mean is not None}
    ranked = sorted(scored, key=lambda model: sign * scored[model])
    ordered = [*ranked, *(model for model in evaluation.models if model not in scored)]
    bars = _bars([summaries[model] for model in ordered])
    standings = tuple(
        ModelRank(
            evaluation.models.index(model),
            model,
            summaries[model],
            evaluation.difference(model, ranked[0], name) if model in ranked[1:] else None,
            bar,
        )
        for model, bar in zip(ordered, bars, strict=True)
    )
    pairs = [(one, other, evaluation.difference(one, other, name)) for one, other in combinations(ranked, 2)]
    scores = [evaluation.clip_scores(model, name) for model in evaluation.models]
    values = [[None if one is None else one.value for one in row] for row in scores]
    nothing: NDArray[np.float64] = np.empty(0)
    frames = [[nothing if (one := row[clip.clip]) is None else one.frames for row in scores] for clip in shown]
    rates = [evaluation.rates[clip.clip] if evaluation.rates else None for clip in shown]
    return MetricView(
        name,
        spec,
        max((places_for(mean) for mean in scored.values()), default=0),
        standings,
        tuple(pairs) if len(ranked) > 2 else (),
        distribution(values, evaluation.clips, [clip.clip for clip in shown]),
        tuple(curves(frames, rates)),
    )


def _bars(summaries: Sequence[Summary]) -> list[tuple[float, float, float] | None]:
    """Return the bar of each summary (see `ModelRank.bar`)."""
    spans = [
        None if one.mean is None else (one.ci95[0], one.mean, one.ci95[1]) if one.ci95 else (one.mean,) * 3
        for one in summaries
    ]
    ends = [end for span in spans if span for end in span]
    if not ends or min(ends) == max(ends):
        return [None] * len(spans)
    low, width = min(ends), max(ends) - min(ends)
    places = [span and [round(3 + 94 * (end - low) / width, 2) for end in span] for span in spans]
    return [(place[0], place[1], place[2]) if place else None for place in places]


def _clip_values(evaluation: Evaluation, clip: int) -> dict[str, list[float | None]]:
    """Return the clip's value for each model, by metric, without metrics that have no values for single clips."""
    table = {}
    for metric in evaluation.metrics:
        scores = [evaluation.clip_scores(model, metric)[clip] for model in evaluation.models]
        values = [None if one is None else one.value for one in scores]
        if any(value is not None for value in values):
            table[metric] = values
    return table


def _versions() -> list[tuple[str, str]]:
    libraries = [(name, metadata.version(name)) for name in _LIBRARIES]
    return [
        ("fommctl", __version__),
        ("Python", platform.python_version()),
        *libraries,
        ("system", f"{platform.system()} {platform.machine()}"),
    ]


def enumerated(names: Sequence[str]) -> str:
    """Join names: `a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
