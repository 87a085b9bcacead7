"""Measures two face models with the metrics of the model card, and compares them with its aims.

    python docs/model/measure.py OLD NEW --data DIR -o OUT [--split test] [--frames N] [--pairs 40] [--list PAIRS.csv]
        [-- more options of fommctl evaluate]

OLD and NEW are names or files of models, as for `fommctl evaluate --models`. Two evaluations are run, which continue
where an earlier run stopped: OUT/reconstruction (each clip from its own first frame) and OUT/across (pairs of different
people, with the defaults of `fommctl animate`), each with its page, tables and JSON. OUT/numbers.md has a table of
each: means with 95 % intervals, differences (new minus old) over the same clips, and in bold the aims that are reached.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD, NEW = "old", "new"
LANDMARKS = "dlib-68"
NOT_ALL = (5, 6)
"""Exit codes of `evaluate` with incomplete results: a metric is missing, or clips failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    metric: str
    text: str
    aim: float | None = None
    least: bool = False
    """Whether the aim is a lower bound; False: an upper one."""
    places: int = 2
    """Decimal places."""


RECONSTRUCTION = (
    Row("l1.strict", "L1", places=4),
    Row("l1.relative", "L1 over repeating the first frame", 0.52),
    Row("akd.paper", "68 points, mean of \\|dx\\| and \\|dy\\| (px)", 1.1),
    Row("akd.strict", "68 points, Euclidean (px)"),
    Row("mouth.correlation", "mouth, correlation", 0.80, least=True),
    Row("mouth.gain", "mouth, gain"),
    Row("eyelids.correlation", "eyelids, correlation", 0.60, least=True),
    Row("eyelids.gain", "eyelids, gain"),
    Row("keypoint-jitter.relative", "jitter over the driving video's", 1.15),
    Row("sharpness", "sharpness of the face over the truth's"),
    Row("aed.plain", "dlib distance from the true frame"),
    Row("mkr.strict", "faces lost", places=3),
)
ACROSS = (
    Row("mouth.correlation", "mouth, correlation"),
    Row("mouth.gain", "mouth, gain", 0.7, least=True),
    Row("eyelids.correlation", "eyelids, correlation"),
    Row("eyelids.gain", "eyelids, gain", 0.6, least=True),
    Row("aed.plain", "dlib distance from the source, mean", 0.30),
    Row("aed.p95", "dlib distance, 95 % of the frames under", 0.45),
    Row("keypoint-jitter.relative", "jitter over the driving video's"),
    Row("sharpness", "sharpness of the face over the source's"),
    Row("mkr.strict", "faces lost", places=3),
)


def main(arguments: Sequence[str]) -> int:
    """Run both evaluations, print and write the tables, and return the larger of both exit codes."""
    options = _options(arguments)
    shared = ["--models", f"{options.old},{options.new}", "--names", f"{OLD},{NEW}", "--data", options.data]
    shared += ["--split", options.split, "--keypoints", LANDMARKS, *options.more]
    shared += ["--max-frames", str(options.frames)] if options.frames else []
    across = ["--mode", "defaults", "--max-clips", str(options.pairs)]
    across += ["--pairs", options.list] if options.list else []
    codes = [
        _evaluate([*shared, "-o", options.output / "reconstruction"], RECONSTRUCTION),
        _evaluate([*shared, *across, "-o", options.output / "across"], ACROSS),
    ]
    text = "\n".join(
        [
            *_table(
                "Reconstruction, each clip from its first frame", options.output / "reconstruction", RECONSTRUCTION
            ),
            "",
            *_table("Across identities, by `fommctl animate` with its defaults", options.output / "across", ACROSS),
            "",
        ]
    )
    (options.output / "numbers.md").write_text(text, encoding="utf-8")
    print(text)
    return max(codes)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--data", required=True, help="as for fommctl evaluate")
    parser.add_argument("--split", default="test", help="as for fommctl evaluate")
    parser.add_argument("--frames", type=int, help="use only the first N frames of each clip")
    parser.add_argument("--pairs", type=int, default=40, help="number of pairs across identities")
    parser.add_argument("--list", help="CSV of pairs to use instead of random ones (columns source and driving)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    own, _, more = " ".join(map(shlex.quote, arguments)).partition(" -- ")
    options = parser.parse_args(shlex.split(own))
    options.more = shlex.split(more)
    return options


def _evaluate(options: Sequence[object], rows: Sequence[Row]) -> int:
    """Run an evaluation and return its exit code; exit if it failed."""
    metrics = ",".join(row.metric for row in rows)
    command = [sys.executable, "-m", "fommctl", "evaluate", *map(str, options), "--metrics", metrics]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, *NOT_ALL):
        raise SystemExit(code)
    return code


def _table(title: str, folder: Path, rows: Sequence[Row]) -> Iterator[str]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    yield f"**{title}**: {found['clips']} clips, {found['frames']} frames"
    yield ""
    yield "| | aim | old | new | new minus old | clips |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        old, new = (found["models"][name]["metrics"].get(row.metric) for name in (OLD, NEW))
        if old is None or new is None:
            continue
        (difference,) = (each for each in found["differences"] if each["metric"] == row.metric)
        mean, interval = difference["mean"], difference["ci95"]
        # `evaluate` computes old minus new.
        change = {"mean": None if mean is None else -mean, "ci95": interval and [-interval[1], -interval[0]]}
        cells = [_cell(old, row), _cell(new, row), _cell(change, row, "+", judged=False), str(difference["clips"])]
        yield f"| {row.text} | {_aim(row)} | {' | '.join(cells)} |"


def _aim(row: Row) -> str:
    return "" if row.aim is None else f"{'≥' if row.least else '≤'} {row.aim:g}"


def _cell(summary: dict[str, Any], row: Row, sign: str = "", *, judged: bool = True) -> str:
    """Return the mean, in bold if it reaches the aim, and its interval."""
    mean, interval = summary["mean"], summary["ci95"]
    if mean is None:
        return "–"
    # Adding 0.0 turns -0.0 into 0.0.
    shown = [f"{round(each, row.places) + 0.0:{sign}.{row.places}f}" for each in (mean, *(interval or ()))]
    if judged and row.aim is not None and (mean >= row.aim if row.least else mean <= row.aim):
        shown[0] = f"**{shown[0]}**"
    return shown[0] if interval is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
