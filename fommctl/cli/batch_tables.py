"""What `fommctl batch` prints for people: the plan of a batch, and what became of it."""

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fommctl.batch.run import BatchPlan, BatchResult

NARROWEST = 78
COLOURS = {"done": "green", "kept": "dim", "failed": "red", "not started": "yellow"}


def plan_table(plan: "BatchPlan") -> "RenderableType":
    """Every job with what would be done about it and why."""
    from rich.console import Group
    from rich.text import Text

    rows = plan.to_json()["plan"]
    table = _table("job", "output", "", "why")
    for row in rows:
        wrong = row["output"] is None or (not row["runs"] and row["reason"] != "done before")
        what, colour = ("runs", "green") if row["runs"] else ("cannot run", "red") if wrong else ("kept", "dim")
        table.add_row(Text(row["where"]), Text(_short(row["output"])), Text(what, colour), Text(row["reason"]))
    counts = f"{len(plan.to_run)} jobs would run, {len(plan.planned) - len(plan.to_run)} are done"
    wrong_count = f", {len(plan.invalid)} cannot run" if plan.invalid else ""
    return Group(table, Text(counts + wrong_count, "bold"))


def summary(result: "BatchResult") -> "RenderableType":
    """What was done now, what failed and why, and how many were done before."""
    from rich.console import Group
    from rich.text import Text

    counts = result.counts
    table = _table("job", "output", "state", "time", "")
    for row in result.jobs:
        if row["state"] == "kept":
            continue
        frames = f"{row['frames']} frames" if row["frames"] is not None else ""
        frames = "; ".join([frames, *row["warnings"]])
        table.add_row(
            Text(row["where"]),
            Text(_short(row["output"])),
            Text(row["state"], COLOURS[row["state"]]),
            Text(clock(row["seconds"])),
            Text(row["reason"] or frames),
        )
    lines = [Text(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing to do", "bold")]
    lines.append(Text(f"in {clock(result.seconds)}; {_short(str(result.status))}"))
    return Group(*([table] if table.row_count else []), *lines)


def clock(seconds: float | None) -> str:
    """`0:01:05`; `4.2 s` below a minute; nothing for None."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else str(datetime.timedelta(seconds=round(seconds)))


def _short(path: str | None) -> str:
    """Relative where that is shorter: people know where they are."""
    if path is None:
        return "-"
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return path
    return min(relative, path, key=len) if not relative.startswith(os.pardir + os.sep + os.pardir) else str(Path(path))


def _table(*headers: str) -> "Table":
    from rich import box, get_console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    if get_console().width < NARROWEST:
        table.width = NARROWEST
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header in ("job", "state", "time"))
    return table
