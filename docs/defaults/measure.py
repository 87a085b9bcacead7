"""Compares candidates for what `fommctl animate` does by default with a model, on the same clips.

    python docs/defaults/measure.py --data DIR -o OUT [--model MODEL] [--pairs PAIRS.csv | --max-pairs 20] [--frames N]
        [--candidate NAME KEY=VALUE[,KEY=VALUE...]]... [-- more options of fommctl evaluate]

A candidate is a set of values for `animate_params.defaults` in the preset; without --candidate, those of CANDIDATES are
compared, each of which differs from the first in one value. A copy of the model for each is written to OUT/models, and
`fommctl evaluate --mode defaults` scores them all on pairs of different people, as `animate` without options would do.
OUT/numbers.md has the table: means with 95 % intervals, and below each the difference from the first candidate over the
same clips. Run the same command again to resume.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

METRICS = {
    "mouth.correlation": "mouth, correlation",
    "mouth.gain": "mouth, gain",
    "eyelids.correlation": "eyelids, correlation",
    "eyelids.gain": "eyelids, gain",
    "keypoint-jitter.relative": "jitter over the driving video's",
    "aed.plain": "dlib distance from the source",
    "sharpness": "sharpness over the source's",
    "mkr.strict": "faces lost",
}
PUBLISHED = {"best_frame": "first", "smooth": "false", "motion": "relative", "adapt_scale": "true"}
CANDIDATES: Mapping[str, Mapping[str, str]] = {
    "published": PUBLISHED,
    "best-frame-auto": {**PUBLISHED, "best_frame": "auto"},
    "smooth": {**PUBLISHED, "smooth": "true"},
    "absolute": {**PUBLISHED, "motion": "absolute"},
    "no-adapted-scale": {**PUBLISHED, "adapt_scale": "false"},
    "width-0.42": {**PUBLISHED, "source_width": "0.42", "driving_width": "0.42"},
    "width-0.35": {**PUBLISHED, "source_width": "0.35", "driving_width": "0.35"},
}
LANDMARKS = "dlib-68"
NOT_ALL = (5, 6)
"""Exit codes of `evaluate` under which there are numbers: some metric is missing, some clips failed."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; the exit code of the evaluation."""
    options = _options(arguments)
    candidates = options.candidates or CANDIDATES
    models = [_write(options.model, name, keys, options.output / "models") for name, keys in candidates.items()]
    command = [sys.executable, "-m", "fommctl", "evaluate", "--mode", "defaults", "--data", options.data]
    command += ["--models", ",".join(map(str, models)), "--names", ",".join(candidates), "--no-videos"]
    command += ["--metrics", ",".join(METRICS), "--keypoints", LANDMARKS, "-o", options.output / "scores"]
    command += ["--pairs", options.pairs] if options.pairs else ["--max-clips", str(options.max_pairs)]
    command += ["--max-frames", str(options.frames)] if options.frames else []
    code = subprocess.run([*map(str, command), *options.more], check=False).returncode
    if code not in (0, *NOT_ALL):
        return code
    found = json.loads((options.output / "scores" / "summary.json").read_text(encoding="utf-8"))
    text = "\n".join([*table(found, list(candidates)), ""])
    (options.output / "numbers.md").write_text(text, encoding="utf-8")
    print(text)
    return code


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="clips, as for fommctl evaluate")
    parser.add_argument("--model", help="a name or a file; else the built-in model")
    parser.add_argument("--pairs", help="CSV with the columns source and driving; else pairs are drawn by the seed")
    parser.add_argument("--max-pairs", type=int, default=20, help="that are drawn")
    parser.add_argument("--frames", type=int, help="of each clip, from the first on; else all")
    parser.add_argument(
        "--candidate", nargs=2, action="append", default=[], metavar=("NAME", "KEYS"), help="smooth smooth=true"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    own, _, more = " ".join(map(shlex.quote, arguments)).partition(" -- ")
    options = parser.parse_args(shlex.split(own))
    options.more = shlex.split(more)
    options.candidates = {
        name: dict(pair.split("=", 1) for pair in keys.split(",") if pair) for name, keys in options.candidate
    }
    return options


def _write(model: str | None, name: str, keys: Mapping[str, str], folder: Path) -> Path:
    """A copy of the model whose preset has these defaults."""
    from fommctl.host import load_host
    from fommctl.models.checkpoint import write_native
    from fommctl.models.loading import load_model

    sets = [f"animate_params.defaults.{key}={value}" for key, value in keys.items()]
    loaded = load_model(model, load_host(), sets=sets)
    groups = {group: network.state_dict() for group, network in loaded.backend.modules().items()}
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_native(path, groups, {"backend": loaded.preset.backend, "preset": loaded.preset.text()})
    return path


def table(found: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """The lines of `numbers.md`. found: the summary of the evaluation."""
    yield f"{found['clips']} pairs, {found['frames']} frames"
    yield ""
    yield f"| | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for metric, text in METRICS.items():
        # The summary of a single model names none.
        means = [found.get("models", {}).get(name, found)["metrics"].get(metric) for name in names]
        if all(mean is None or mean["mean"] is None for mean in means):
            continue
        yield f"| {text} | {' | '.join(map(_cell, means))} |"
        less = [None, *(_difference(found, metric, name, names[0]) for name in names[1:])]
        yield f"| minus {names[0]} | {' | '.join(_cell(each, '+') for each in less)} |"


def _difference(found: Mapping[str, Any], metric: str, name: str, first: str) -> dict[str, Any] | None:
    """Return the difference of this candidate less the first; `evaluate` has the first one less the others."""
    for each in found["differences"]:
        if (each["metric"], each["model"], each["minus"]) == (metric, first, name) and each["mean"] is not None:
            interval = each["ci95"] and [-each["ci95"][1], -each["ci95"][0]]
            return {"mean": -each["mean"], "ci95": interval}
    return None


def _cell(summary: Mapping[str, Any] | None, sign: str = "") -> str:
    """Mean and interval; bold where an interval of a difference leaves out zero."""
    if summary is None or summary["mean"] is None:
        return ""
    # Adding nothing takes the sign from a zero.
    mean, *interval = (f"{round(each, 3) + 0.0:{sign}.3f}" for each in (summary["mean"], *(summary["ci95"] or ())))
    if sign and interval and summary["ci95"][0] * summary["ci95"][1] > 0:
        mean = f"**{mean}**"
    return f"{mean} [{interval[0]}, {interval[1]}]" if interval else mean


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
