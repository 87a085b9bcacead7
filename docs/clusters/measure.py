"""Measures how much several workers gain over one: `fommctl batch` runs the same jobs with 1, 2, ... single-threaded
workers.

    python docs/clusters/measure.py portrait.png talk.mp4 --workers 1 2 --jobs 8
    python docs/clusters/measure.py portrait.png talk.mp4 --workers 1 2 4 --address head:6379
    python docs/clusters/measure.py portrait.png talk.mp4 --workers 1 2 --split

Each number of workers is run --repeat times, in turn, and the fastest run counts, since other load on the machine can
only slow a run down. With start-up: from start to end of the command, including connecting to Ray, starting workers and
loading models. Without: from the moment when as many jobs are done as there are workers (each has its model by then) to
the last job. Efficiency: the rate over that of one worker, divided by the number of workers. --split renders one job,
in as many parts as there are workers; its time without start-up is the one that the worker reports.

The results are written to a temporary folder next to the driving video, so that reading and writing use the storage
to be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Jobs a second; None without start-up where there were too few jobs to tell."""

    with_start: float
    without_start: float | None


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("driving", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--engine", choices=["ray", "local"], default="ray")
    parser.add_argument("--address")
    parser.add_argument("--precision", default="fp32")
    chosen = parser.parse_args()
    runs: dict[int, list[Run]] = {workers: [] for workers in chosen.workers}
    for _ in range(chosen.repeat):
        for workers in chosen.workers:
            runs[workers].append(measured(chosen, workers))
            print(f"{workers} workers: {runs[workers][-1]}", file=sys.stderr)
    base_workers = min(chosen.workers)
    base = fastest(runs[base_workers])
    print(f"{'workers':>7} {'jobs/s':>8} {'efficiency':>10} {'without start-up':>17} {'efficiency':>10}")
    for workers, found in runs.items():
        best, factor = fastest(found), workers / base_workers
        columns = f"{workers:>7} {best.with_start:>8.4f} {best.with_start / base.with_start / factor:>10.3f}"
        if best.without_start is not None and base.without_start is not None:
            columns += f" {best.without_start:>17.4f} {best.without_start / base.without_start / factor:>10.3f}"
        print(columns)


def fastest(runs: list[Run]) -> Run:
    """The best of each rate."""
    without = [run.without_start for run in runs if run.without_start is not None]
    return Run(max(run.with_start for run in runs), max(without, default=None))


def measured(chosen: argparse.Namespace, workers: int) -> Run:
    """One run of all jobs."""
    with tempfile.TemporaryDirectory(prefix=".fommctl-measure-", dir=chosen.driving.absolute().parent) as folder:
        jobs = Path(folder, "jobs.jsonl")
        count = 1 if chosen.split else chosen.jobs
        rows = [
            {"source": str(chosen.source.absolute()), "driving": str(chosen.driving.absolute()), "output": f"{n}.mkv"}
            for n in range(count)
        ]
        jobs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        command = [
            *(sys.executable, "-m", "fommctl", "batch", str(jobs), "--json", "--precision", chosen.precision),
            *("--engine", chosen.engine, "--workers", str(workers)),
            *(("--address", chosen.address) if chosen.address else ()),
            *(("--split", str(workers)) if chosen.split else ()),
        ]
        began = time.monotonic()
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
        seconds = time.monotonic() - began
        if chosen.split:
            return Run(1 / seconds, 1 / json.loads(done.stdout)["jobs"][0]["seconds"])
        return Run(count / seconds, steady_rate(Path(folder, "status.jsonl"), workers))


def steady_rate(status: Path, workers: int) -> float | None:
    """Jobs a second once every worker has done one."""
    lines = map(json.loads, status.read_text().splitlines())
    ends = sorted(datetime.fromisoformat(line["time"]).timestamp() for line in lines if line["state"] == "done")
    if len(ends) < 2 * workers:
        return None
    return (len(ends) - workers) / (ends[-1] - ends[workers - 1])


if __name__ == "__main__":
    main()
