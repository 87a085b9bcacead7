"""What `fommctl evaluate` prints for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fommctl.stages.evaluate import EvaluateResult
    from fommctl.stages.evaluation.results import Evaluation, Summary

LISTED = 10
"""Failed clips that are printed; all are in summary.json and under --json."""
SIGNIFICANT = 4


def summary(result: "EvaluateResult") -> "RenderableType":
    """A table of all metrics, and what went wrong."""
    from rich.console import Group
    from rich.text import Text

    evaluation = result.evaluation
    scored = sum(frames > 0 for frames in evaluation.frames)
    kept = f"; {result.kept} were scored already" if result.kept else ""
    lines: list[Text] = [Text(f"{evaluation.mode}: {scored} clips, {sum(evaluation.frames)} frames{kept}")]
    lines += [Text(f"{metric} is left out: {why}", "red") for metric, why in result.missing.items()]
    lines += [Text(f"failed: {each['model']}: {each['clip']}: {each['message']}", "red") for each in _first(evaluation)]
    if len(evaluation.failed) > LISTED:
        lines.append(Text(f"and {len(evaluation.failed) - LISTED} more: see {result.output / 'summary.json'}"))
    where = Text(str(evaluation.report or result.output), "bold")
    return Group(_table(evaluation), *lines, where)


def _first(evaluation: "Evaluation") -> list[dict[str, str]]:
    return [dict(each) for each in evaluation.failed[:LISTED]]


def _table(evaluation: "Evaluation") -> "Table":
    """A row for each metric and model, the best model first."""
    from rich import box
    from rich.table import Table

    several = len(evaluation.models) > 1
    table = Table(box=box.SIMPLE)
    table.add_column("metric", no_wrap=True)
    if several:
        table.add_column("model", overflow="fold")
    headers = ["mean", "95% interval", *(["to the best", "95% interval"] if several else []), "frames", "coverage"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("unit")
    for metric, info in evaluation.metrics.items():
        ranking = evaluation.ranking(metric)
        rest = [model for model in evaluation.models if model not in ranking]
        for place, model in enumerate([*ranking, *rest]):
            found = evaluation.summary(model, metric)
            cells = [_number(found.mean), _interval(found)]
            if several:
                gap = evaluation.difference(model, ranking[0], metric) if place and model in ranking else None
                cells = [model, *cells, _number(gap.mean if gap else None, "+"), _interval(gap)]
            arrow = "↓" if info.lower_is_better else "↑"
            name = f"{metric} {arrow}" if not place else ""
            best = several and not place and model in ranking
            row = [name, *cells, str(found.frames), f"{found.coverage:.1%}", "" if place else info.unit]
            table.add_row(*row, style="bold" if best else None, end_section=place + 1 == len(evaluation.models))
    return table


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{SIGNIFICANT}g}"


def _interval(found: "Summary | None") -> str:
    if found is None or found.ci95 is None:
        return "-"
    return f"{_number(found.ci95[0])} to {_number(found.ci95[1])}"
