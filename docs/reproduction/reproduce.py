"""Trains FOMM, its ablation, its predecessors and TPSMM on synthetic clips, scores them and writes the page beside it.

    nice python docs/reproduction/reproduce.py -o OUT
    python docs/reproduction/reproduce.py -o OUT --steps 200 --seeds 1 --ablation-seeds 0 --page OUT/README.md

Everything is done by `fommctl preprocess`, `train` and `evaluate`, so that it can be repeated by hand; `--dry-run`
prints the commands. A run of many hours may be stopped at any time (Ctrl-C): the same command again goes on where it
was. Each finished training is a line of RUNS (`--runs`, by default runs.jsonl beside the page): one that has a line is
not made again, wherever OUT is, so that several machines or days can share the work. Seed comes after seed, and the
page is written anew from RUNS after each training: an unfinished reproduction has whole seeds to show.

OUT/data/SET/                           clips, see SETS
OUT/runs/SET/SYSTEM/seed-N/             a training each
OUT/runs/SET/SYSTEM/seed-N/scores/      the scores of its models (metrics.csv), which are named by their steps

Score of a system: the mean over its seeds and over the held-out clips, each clip counting alike. Intervals of 95 %:
the percentile bootstrap, with clips (the same ones for all systems) and seeds (each system's own) drawn with
replacement. Of so few seeds the bootstrap knows little: the intervals are rather too narrow than too wide.

The local maps (Jacobians) themselves are measured, too: at each keypoint that lies on a moving part, the model's map
from the driving frame to the source, J_S J_D^-1, against the true one, which the synthetic sets know.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by reproduce.py -->", "<!-- end of results -->"
SETS = {
    "turning": "pairs of shapes that turn by up to 120 degrees to each side and change their size by up to a half",
    "reach": "an arm of three segments that swing by up to 30, 50 and 70 degrees, each about the end of the one below",
    "shapes": "the pairs of shapes of the first run, which turn by up to 40 degrees",
}
SYSTEMS = {"small-x2face": "X2Face", "small-monkeynet": "Monkey-Net", "small-fomm": "FOMM", "small-tpsmm": "TPSMM"}
ABLATION = {
    "small-fomm-baseline": "Baseline",
    "small-fomm-pyramid": "Pyr.",
    "small-fomm-occlusion": "Pyr.+O",
    "small-fomm-jacobian": "Jac. w/o Eq. (12)",
}
PAPER = {
    "small-x2face": (0.080, 17.654, 0.109),
    "small-monkeynet": (0.077, 10.798, 0.059),
    "small-fomm-baseline": (0.073, 8.945, 0.099),
    "small-fomm-pyramid": (0.069, 9.407, 0.065),
    "small-fomm-occlusion": (0.069, 8.773, 0.050),
    "small-fomm-jacobian": (0.073, 9.887, 0.052),
    "small-fomm": (0.063, 6.862, 0.036),
    "small-tpsmm": (0.045, 4.57, 0.018),
}
"""L1, AKD and MKR on Tai-Chi-HD (Siarohin et al. 2019, tables 1 and 3; TPSMM: Zhao and Zhang 2022, table 1, another
evaluation), recalled and not checked again."""
CLAIMS = (
    ("small-tpsmm", "small-fomm"),
    ("small-fomm", "small-monkeynet"),
    ("small-monkeynet", "small-x2face"),
    ("small-fomm", "small-fomm-jacobian"),
    ("small-fomm", "small-fomm-occlusion"),
    ("small-fomm-occlusion", "small-fomm-pyramid"),
    ("small-fomm-pyramid", "small-fomm-baseline"),
)
"""Better before worse, by the paper."""
METRICS = {"l1.paper": 4, "akd.strict": 1, "mkr.strict": 3, "psnr": 2, "ssim": 3}
"""Decimal places to print."""
HIGHER = frozenset({"psnr", "ssim"})
COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#b07aa1", "#9c755f", "#edc948")
DRAWS = 2000
Floats = NDArray[np.float64]


Record = dict[str, Any]
"""A finished training: a line of RUNS."""


@dataclass(frozen=True, order=True)
class Run:
    """One training."""

    seed: int
    data: str
    system: str

    def folder(self, out: Path) -> Path:
        return out / "runs" / self.data / self.system / f"seed-{self.seed}"


def main() -> int:
    options = parse()
    records = read(options.runs)
    if any([row[0] for row in each["curve"]] != moments(options) for each in records):
        raise SystemExit(f"{options.runs} has other --steps or --points: choose another file by --runs")
    finished = {Run(each["seed"], each["set"], each["system"]) for each in records}
    runs, failed = sorted(set(planned(options)) - finished), 0
    for name in {run.data for run in runs}:
        folder = options.out / "data" / name
        words = ["preprocess", f"synthetic-{name}", "-o", folder, "--size", 64, "--format", "mkv"]
        if not (folder / "manifest.jsonl").exists():
            call(words, options)
    begun = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(finish, run, options): run for run in runs}
        for number, future in enumerate(as_completed(futures), start=1):
            if error := future.exception():
                failed += 1
                print(f"{futures[future]}: {error}", file=sys.stderr, flush=True)
            elif not options.dry_run:
                records.append(record(futures[future], options))
                with options.runs.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                write(records, options)
            print(f"{number} of {len(runs)} runs after {(time.monotonic() - begun) / 60:.0f} min", flush=True)
    if not runs:
        write(records, options)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for data and trainings")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--points", type=int, default=4, help="moments of a training at which it is scored")
    parser.add_argument("--seeds", type=int, default=5, help="of X2Face, Monkey-Net, FOMM and TPSMM")
    parser.add_argument("--ablation-seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["turning", "reach"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS | ABLATION, default=[*SYSTEMS, *ABLATION])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, of one thread each where several")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for fommctl train")
    parser.add_argument("--page", type=Path, default=HERE / "README.md", help="results go between its two markers")
    parser.add_argument("--runs", type=Path, help="finished trainings (default: runs.jsonl beside the page)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to run")
    options = parser.parse_args()
    options.runs = options.runs or options.page.with_name("runs.jsonl")
    return options


def planned(options: argparse.Namespace) -> Iterator[Run]:
    for data in options.sets:
        for system in options.systems:
            for seed in range(options.seeds if system in SYSTEMS else options.ablation_seeds):
                yield Run(seed, data, system)


def moments(options: argparse.Namespace) -> list[int]:
    """Return the steps at which a training is scored."""
    return sorted({max(1, options.steps * number // options.points) for number in range(1, options.points + 1)})


def call(words: Iterable[object], options: argparse.Namespace) -> None:
    """Run `fommctl WORDS`; raises RuntimeError with the last line that it printed."""
    command = [sys.executable, "-m", "fommctl", *map(str, words)]
    if options.dry_run:
        print(shlex.join(["fommctl", *command[3:]]), flush=True)
        return
    threads = {"OMP_NUM_THREADS": "1"} if options.jobs > 1 else {}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{shlex.join(['fommctl', *command[3:]])}: {' '.join(lines[-2:])}")


def finish(run: Run, options: argparse.Namespace) -> None:
    """Do what is left of one training and its scores."""
    steps, folder, data = moments(options), run.folder(options.out), options.out / "data" / run.data
    training = folder / "training.json"
    if not training.exists():
        begun = time.monotonic()
        words = ["train", "--preset", run.system, "--data", data, "--seed", run.seed, "--device", options.device]
        words += ["--precision", "fp32", "--pictures-every", 0, "--workers", 0, "--out", folder, "--resume", "auto"]
        words += ["--max-steps", options.steps, "--keep", 1000]
        changed = [f"train_params.checkpoint_every_steps={steps[0]}", *options.set]
        call([*words, *(word for text in changed for word in ("--set", text))], options)
        if not options.dry_run:
            # Of the last call only, where the training was interrupted.
            training.write_text(json.dumps({"steps": options.steps, "seconds": round(time.monotonic() - begun)}))
    elif (before := json.loads(training.read_text())["steps"]) != options.steps:
        raise RuntimeError(f"{folder} was trained for {before} steps: choose another OUT, or give --steps {before}")
    if not (folder / "scores/metrics.csv").exists():
        # A checkpoint is scored with its averaged weights, as the finished model.
        models = [folder / f"checkpoints/step-{step:08d}.pt" for step in steps[:-1]] + [folder / "model.safetensors"]
        words = ["evaluate", "--models", ",".join(map(str, models)), "--names", ",".join(map(str, steps))]
        words += ["--data", data, "--split", "test", "--metrics", ",".join(METRICS), "--no-videos"]
        call([*words, "--device", options.device, "-o", folder / "scores"], options)
    maps = folder / "maps.json"
    if "fomm" in run.system and not maps.exists() and not options.dry_run:
        maps.write_text(json.dumps(local_maps(folder / "model.safetensors", run.data, options.device)))


def local_maps(model: Path, data: str, device: str) -> dict[str, float] | None:
    """Compare the model's local maps with the true ones on the held-out clips, every frame driving the first.

    Returns the mean Frobenius distance and the mean error of the rotation in degrees, of the model's maps and of the
    identity, which is the map of a zeroth-order model, at the same keypoints; `on_parts` is the share of keypoints that
    lie on a moving part and could be compared. None for models without Jacobians.
    """
    import torch

    import fommctl
    from fommctl_synthetic.dataset import Synthetic

    animator = fommctl.load(model, device=device, precision="fp32")
    renderer = animator.renderer(None)
    synthetic = Synthetic(identities=48, test_identities=8, kinds=(data,))
    errors: list[tuple[float, float, float, float]] = []
    count = 0
    for clip in synthetic.clips(Path()):
        if clip.split != "test":
            continue
        scene = synthetic.scenes[clip.name][1]
        frames = torch.from_numpy(np.stack(list(scene.frames()))).permute(0, 3, 1, 2).float() / 255
        motion = renderer.detect(frames.to(renderer.device))
        if motion.jacobians is None:
            return None
        keypoints, jacobians = (part.double().cpu().numpy() for part in (motion.keypoints, motion.jacobians))
        poses = [[layer.pose(index / scene.length)[1] for layer in scene.layers] for index in range(scene.length)]
        for index in range(1, scene.length):
            labels = scene.labels_at(keypoints[index], index / scene.length)
            count += len(labels)
            for number in np.flatnonzero(labels >= 0):
                true = poses[0][labels[number]] @ np.linalg.inv(poses[index][labels[number]])
                ours = jacobians[0, number] @ np.linalg.inv(jacobians[index, number])
                angles = (rotation_error(ours, true), rotation_error(np.eye(2), true))
                errors.append((float(np.linalg.norm(ours - true)), float(np.linalg.norm(np.eye(2) - true)), *angles))
    means = np.mean(errors, axis=0).tolist() if errors else [math.nan] * 4
    names = ("distance", "distance_of_identity", "degrees", "degrees_of_identity")
    return {**dict(zip(names, means, strict=True)), "on_parts": len(errors) / max(1, count)}


def rotation_error(one: Floats, other: Floats) -> float:
    """Return the angle in degrees between the rotations nearest to two maps."""
    first, second = (math.atan2(each[1, 0] - each[0, 1], each[0, 0] + each[1, 1]) for each in (one, other))
    return abs(math.degrees(math.remainder(first - second, math.tau)))


def read(path: Path) -> list[Record]:
    """Return the finished trainings of RUNS."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def record(run: Run, options: argparse.Namespace) -> Record:
    """Return the line of RUNS of a finished training: the mean of each metric at each moment, and the last by clip."""
    import torch

    import fommctl

    folder = run.folder(options.out)
    at = clip_scores(folder / "scores/metrics.csv")
    maps = folder / "maps.json"
    return {
        "set": run.data,
        "system": run.system,
        "seed": run.seed,
        "steps": options.steps,
        "seconds": json.loads((folder / "training.json").read_text())["seconds"],
        "curve": [[step, *rounded(np.nanmean(list(at[step].values()), axis=0))] for step in moments(options)],
        "clips": {clip: rounded(values) for clip, values in at[options.steps].items()},
        "maps": json.loads(maps.read_text()) if maps.exists() else None,
        "made_with": {
            "fommctl": fommctl.__version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {options.device}",
        },
    }


def clip_scores(path: Path) -> dict[int, dict[str, list[float]]]:
    """Return the values of METRICS by step and clip."""
    found: dict[int, dict[str, list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["frame"]:
                found.setdefault(int(row["model"]), {})[row["clip"]] = [float(row[name] or "nan") for name in METRICS]
    return found


def rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def write(records: Sequence[Record], options: argparse.Namespace) -> None:
    """Write the page and its curves."""
    page = options.page
    page.parent.mkdir(parents=True, exist_ok=True)
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Reproduction\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [settings(records)]
    for name in SETS:
        if own := [each for each in records if each["set"] == name]:
            results = collect(own)
            picture = page.with_name(f"curves-{name}.svg")
            picture.write_text(curves(results), encoding="utf-8")
            parts += [f"### {name.capitalize()}: {SETS[name]}", scores(results), f"![Score over steps]({picture.name})"]
            parts += [claims(results), maps_table(results), seeds(results)]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(filter(None, parts)) + f"\n\n{END}{after}", encoding="utf-8")


def collect(records: Sequence[Record]) -> dict[str, Any]:
    """Return everything that the page shows of one set."""
    clips = sorted(set.intersection(*(set(each["clips"]) for each in records)))
    runs = {
        name: sorted((each for each in records if each["system"] == name), key=lambda each: each["seed"])
        for name in SYSTEMS | ABLATION
    }
    runs = {name: own for name, own in runs.items() if own}
    tables = {name: [np.array([each["clips"][clip] for clip in clips]) for each in own] for name, own in runs.items()}
    return {
        "clips": len(clips),
        "systems": {name: summary(table) for name, table in tables.items()},
        "curves": {
            name: np.nanmean([each["curve"] for each in own], axis=0).tolist() for name, own in runs.items()
        },
        "claims": [
            claim
            for better, worse in CLAIMS
            if better in tables and worse in tables
            for claim in compared(better, worse, tables)
        ],
        "maps": {name: [each["maps"] for each in own if each["maps"]] for name, own in runs.items()},
        "seconds": {name: [each["seconds"] for each in own] for name, own in runs.items()},
    }  # fmt: skip


def drawn(tables: Sequence[Floats], stream: int) -> Floats:
    """Return (DRAWS, metrics): means over drawn clips, the same for all systems, and drawn seeds."""
    stack = np.stack(tables)
    clips = np.random.default_rng(0).integers(0, stack.shape[1], (DRAWS, stack.shape[1]))
    chosen = np.random.default_rng([1, stream]).integers(0, len(stack), (DRAWS, len(stack)))
    return np.stack([np.nanmean(stack[own][:, those], axis=(0, 1)) for own, those in zip(chosen, clips, strict=True)])


def interval(values: Floats) -> list[float]:
    return np.nanpercentile(values, (2.5, 97.5)).tolist()  # type: ignore[no-any-return]


def summary(tables: Sequence[Floats]) -> dict[str, Any]:
    sample, seeds_of = drawn(tables, 0), np.stack([np.nanmean(table, axis=0) for table in tables])
    return {
        metric: {"mean": float(seeds_of[:, n].mean()), "ci95": interval(sample[:, n]), "seeds": seeds_of[:, n].tolist()}
        for n, metric in enumerate(METRICS)
    }


def compared(better: str, worse: str, tables: dict[str, list[Floats]]) -> Iterator[dict[str, Any]]:
    """Yield the difference of two systems by each metric, and whether its interval leaves zero out."""
    sample = drawn(tables[better], 1) - drawn(tables[worse], 2)
    mean = np.nanmean(tables[better], axis=(0, 1)) - np.nanmean(tables[worse], axis=(0, 1))
    for n, metric in enumerate(METRICS):
        low, high = interval(sample[:, n])
        good = (mean[n] > 0) == (metric in HIGHER)
        ours = "undecided" if low <= 0 <= high else "better" if good else "worse"
        theirs = None
        if n < len(PAPER[better]):
            one, other = PAPER[better][n], PAPER[worse][n]
            theirs = "equal" if one == other else "better" if one < other else "worse"
        pair = {"better": better, "worse": worse, "metric": metric}
        yield {**pair, "mean": float(mean[n]), "ci95": [low, high], "ours": ours, "paper": theirs}


def settings(records: Sequence[Record]) -> str:
    if not records:
        return "The run has not been made yet."
    made = sorted({"fommctl {fommctl}, torch {torch} ({machine})".format(**each["made_with"]) for each in records})
    trained = sum(each["seconds"] for each in records)
    return (
        f"Made by `docs/reproduction/reproduce.py`: {len(records)} trainings of {records[0]['steps']} steps in fp32, "
        f"{trained / 3600:.1f} hours in all, with {'; '.join(made)}. Scores are means over seeds and held-out clips, "
        "each reconstructed from its first frame, with 95 % intervals (bootstrap over clips and seeds). All numbers: "
        "[runs.jsonl](runs.jsonl)."
    )


def scores(results: dict[str, Any]) -> str:
    header = ["system", "stands for", "seeds", *(f"{metric} {'↑' if metric in HIGHER else '↓'}" for metric in METRICS)]
    header += [f"paper: {column} ↓" for column in ("L1", "AKD", "MKR")]
    rows = []
    for name, found in results["systems"].items():
        cells = [f"`{name}`", (SYSTEMS | ABLATION)[name], str(len(found["psnr"]["seeds"]))]
        for metric, places in METRICS.items():
            mean, (low, high) = found[metric]["mean"], found[metric]["ci95"]
            cells.append(f"{mean:.{places}f} [{low:.{places}f}, {high:.{places}f}]")
        rows.append([*cells, *(f"{value:.3f}" for value in PAPER[name])])
    note = "The paper's numbers are of Tai-Chi-HD, 256 pixels and large networks, and recalled: only orders compare."
    return f"{table(header, rows)}\n\n{note}"


def claims(results: dict[str, Any]) -> str:
    rows = []
    for each in results["claims"]:
        places, (low, high) = METRICS[each["metric"]], each["ci95"]
        difference = f"{each['mean']:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]"
        pair = f"`{each['better']}` before `{each['worse']}`"
        rows.append([pair, each["metric"], difference, each["ours"], each["paper"] or "–"])
    return table(["", "metric", "difference", "ours", "paper"], rows) if rows else ""


def maps_table(results: dict[str, Any]) -> str:
    rows = []
    for name, runs in results["maps"].items():
        if runs:
            mean = {key: float(np.mean([each[key] for each in runs])) for key in runs[0]}
            rows.append([
                f"`{name}`", f"{mean['distance']:.3f}", f"{mean['distance_of_identity']:.3f}",
                f"{mean['degrees']:.1f}", f"{mean['degrees_of_identity']:.1f}", f"{mean['on_parts']:.0%}",
            ])  # fmt: skip
    header = ["local maps", "distance to truth", "of the identity", "rotation error, degrees", "of the identity"]
    return table([*header, "keypoints on parts"], rows) if rows else ""


def seeds(results: dict[str, Any]) -> str:
    rows = [
        [f"`{name}`", ", ".join(f"{value:.4f}" for value in found["l1.paper"]["seeds"]),
         ", ".join(map(str, results["seconds"][name]))]
        for name, found in results["systems"].items()
    ]  # fmt: skip
    return table(["system", "l1.paper of each seed", "seconds of each training"], rows) if rows else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rules = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


def curves(results: dict[str, Any]) -> str:
    """Draw L1, keypoint distance and PSNR over steps, a line a system, as SVG."""
    width, height, margin, parts = 300, 200, 55, []
    for panel, metric in enumerate(("l1.paper", "akd.strict", "psnr")):
        column = 1 + list(METRICS).index(metric)
        lines = {
            name: [(row[0], row[column]) for row in rows if math.isfinite(row[column])]
            for name, rows in results["curves"].items()
        }
        xs, ys = zip(*[point for points in lines.values() for point in points] or [(0, 0)], strict=True)
        low, span = min(ys), (max(ys) - min(ys)) or 1
        left = panel * (width + margin) + margin

        def place(x: float, y: float, left: float = left, low: float = low, span: float = span) -> tuple[float, float]:
            return left + width * x / (max(xs) or 1), 25 + height * (1 - (y - low) / span)  # noqa: B023

        parts.append(f'<text x="{left}" y="15">{metric}</text>')
        parts.append(f'<rect x="{left}" y="25" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for value in (low, low + span):
            parts.append(f'<text x="{left - 4}" y="{place(0, value)[1] + 4}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text x="{left + width}" y="{height + 40}" text-anchor="end">{max(xs)} steps</text>')
        for points, colour in zip(lines.values(), COLOURS, strict=False):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (name, colour) in enumerate(zip(results["curves"], COLOURS, strict=False)):
        x, y = margin + number % 4 * 250, height + 65 + number // 4 * 18
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{(SYSTEMS | ABLATION)[name]}</text>')
    size = f'width="{3 * (width + margin) + 20}" height="{height + 95}"'
    style = 'font-family="sans-serif" font-size="12" style="background:#fff"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    sys.exit(main())
