"""`report.html` of `evaluate`: one page with the numbers, plots, videos and all that is needed to repeat them.

The page has no script and asks nobody for anything: its policy (Content-Security-Policy) forbids it. Its numbers are
`<data>` elements with `data-metric`, `data-model` and `data-field`, whose `value` is exact.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl import __version__
from fommctl.evaluate.report_numbers import enumerated, places_for, printed
from fommctl.evaluate.report_plots import MOST_DOTS, Curves, Distribution, curves, distribution
from fommctl.evaluate.report_videos import ShownClip, embedded_videos, shown_clips
from fommctl.evaluate.results import Evaluation, MetricInfo, Summary
from fommctl.evaluate.sources import MODEL
from fommctl.evaluate.videos import shown_keypoints
from fommctl.files import write_text

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
"""What stands in a side-by-side video to the left of the models."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A model under one metric."""

    model: int
    """Index among the models."""
    name: str
    summary: Summary
    behind_best: Summary | None
    """This model less the best one, over the clips that both scored; None for the best itself and without a score."""
    bar: tuple[float, float, float] | None
    """The interval's lower end, the mean and the upper end, in percent of the range of all models."""


@dataclass(frozen=True, slots=True)
class MetricView:
    """What the page shows of one metric."""

    name: str
    info: MetricInfo
    places: int
    """Decimal places of its means."""
    standings: tuple[Standing, ...]
    """The best first; models without a score last."""
    pairs: tuple[tuple[str, str, Summary], ...]
    """Every two models and the first less the second."""
    distribution: Distribution | None
    """None where single clips have no value."""
    curves: tuple[Curves | None, ...]
    """Of each shown clip; None where its frames have no scores."""


def write_report(
    evaluation: Evaluation,
    videos: Mapping[str, Path],
    path: Path,
    *,
    commands: Sequence[str] = (),
    made: datetime | None = None,
) -> None:
    """Write the page, all or nothing.

    videos: a side-by-side WebM of each clip, by its name; those of the best, the median and the worst clip become part
    of the page, shortened where they are large (`report_videos`).  commands: lines that repeat the evaluation.
    made: when; None: now. Raises OutputError, and InputError for a video that cannot be read.
    """
    # Imported here: only this function needs it.
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
    order, shown = shown_clips(evaluation)
    options, keypoints = evaluation.configuration.get("options", {}), evaluation.configuration.get("keypoints")
    metrics = [_metric(evaluation, name, shown) for name in evaluation.metrics]
    return {
        "title": _title(evaluation.models),
        "mode": _MODES[evaluation.mode],
        "columns": enumerated([*_COLUMNS[evaluation.mode], *evaluation.models]),
        "data": options.get("data") or options.get("truth"),
        "made": made.astimezone(UTC),
        "evaluation": evaluation,
        "several": len(evaluation.models) > 1,
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


def _title(models: Sequence[str]) -> str:
    return f"Evaluation of {models[0]}" if len(models) == 1 else f"{enumerated(models)} compared"


def _metric(evaluation: Evaluation, name: str, shown: Sequence[ShownClip]) -> MetricView:
    summaries = {model: evaluation.summary(model, name) for model in evaluation.models}
    info = evaluation.metrics[name]
    sign = 1 if info.lower_is_better else -1
    scored = {model: one.mean for model, one in summaries.items() if one.mean is not None}
    ranked = sorted(scored, key=lambda model: sign * scored[model])
    ordered = [*ranked, *(model for model in evaluation.models if model not in scored)]
    bars = _bars([summaries[model] for model in ordered])
    standings = tuple(
        Standing(
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
        info,
        max((places_for(mean) for mean in scored.values()), default=0),
        standings,
        tuple(pairs) if len(ranked) > 2 else (),
        distribution(values, evaluation.clips, [clip.clip for clip in shown]),
        tuple(curves(frames, rates)),
    )


def _bars(summaries: Sequence[Summary]) -> list[tuple[float, float, float] | None]:
    """Where each interval lies, in percent of what all of them span."""
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
    """By metric, the clip's value under each model; metrics without values of single clips are left out."""
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
