"""The display of a batch: the live table, the lines, the plan and the summary."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.job_files import Problem
from fommctl.batch.jobs import Job
from fommctl.batch.keys import Key
from fommctl.batch.run import BatchPlan, BatchResult
from fommctl.batch.schedule import Ended, Planned
from fommctl.cli.batch import _Progress, clock, plan_table, summary, watching
from fommctl.cli.console import LogFormat, Session


def job(number: int, name: str = "") -> Job:
    output = Path(f"/night/{name or f'{number}.mov'}")
    config = AnimateConfig(source=Path("/night/a.png"), driving=Path("/night/d.mp4"), output=output)
    return Job(number=number, where=f"line {number}", config=config, choice=ModelChoice())


def plan() -> BatchPlan:
    key = Key("k", {})
    jobs = (Planned(job(1), key, "new"), Planned(job(2), key, None), Planned(job(3, "f/%05d.png"), key, "missing"))
    return BatchPlan(planned=jobs, invalid=(Problem("line 4", "the job has no source"),))


def shown(renderable: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_live_table() -> None:
    progress = _Progress(3)
    progress.started(job(1), 1)
    progress.started(job(3, "f/%05d.png"), 1)
    progress.progress(job(1), 12, 48)
    text = shown(progress.picture())
    assert "1.mov" in text
    assert "12 of 48 frames" in text
    assert "f/%05d.png" in text
    assert "0 of 3 jobs" in text
    progress.failed_once(job(1), "it broke")
    progress.ended(Ended(job=job(3), state="done", attempts=1, seconds=65.2, result={"frames": 48}))
    text = shown(progress.picture())
    assert "it broke; will be retried" in text
    assert "48 frames, 0:01:05" in text
    assert "1 of 3 jobs (1 done)" in text


@pytest.mark.parametrize("style", [LogFormat.TEXT, LogFormat.JSON])
def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], style: LogFormat) -> None:
    with watching(Session(log_format=style), plan()) as watcher:
        watcher.started(job(1), 1)
        watcher.progress(job(1), 1, 2)
        watcher.ended(Ended(job=job(1), state="failed", attempts=1, error={"message": "it broke"}))
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/2 1.mov: failed, it broke" in err
    assert err.startswith("{") == (style == LogFormat.JSON)
    with watching(Session(quiet=True), plan()) as watcher:
        watcher.ended(Ended(job=job(1), state="done", attempts=1))
    assert capsys.readouterr() == ("", "")


def test_the_plan() -> None:
    text = shown(plan_table(plan()))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "line 1 /night/1.mov runs new" in rows
    assert "line 2 /night/2.mov kept done before" in rows
    assert "line 4 - cannot run the job has no source" in rows
    assert "2 jobs would run, 1 are done, 1 cannot run" in rows


def test_the_summary() -> None:
    row = {"where": "line 1", "output": "/night/1.mov", "state": "done", "seconds": 2.04, "reason": None, "frames": 48}
    rows = (
        {**row, "warnings": ["two faces", "no sound"]},
        {**row, "where": "line 2", "state": "kept", "warnings": []},
        {**row, "where": "line 3", "state": "failed", "reason": "it broke", "warnings": []},
    )
    text = shown(summary(BatchResult(jobs=rows, status=Path("/night/status.jsonl"), seconds=3723)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "line 1 /night/1.mov done 2.0 s 48 frames; two faces; no sound" in lines
    assert "line 3 /night/1.mov failed 2.0 s it broke" in lines
    assert not any("line 2" in line for line in lines)
    assert "1 done, 1 kept, 1 failed" in lines
    assert "in 1:02:03; /night/status.jsonl" in lines
    nothing = shown(summary(BatchResult(jobs=(), status=Path("/night/status.jsonl"), seconds=0)))
    assert nothing.startswith("nothing to do")


def test_times() -> None:
    assert [clock(each) for each in (None, 0.04, 59.94, 60, 3600)] == ["", "0.0 s", "59.9 s", "0:01:00", "1:00:00"]
