"""The tables of a reproduction as Markdown, from what results.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fommctl.evaluate.plots import places_for, printed
from fommctl.stages.reproduction.paper import COLUMNS

BENCHMARKS: Mapping[str, str] = {"tai-chi-hd": "Tai-Chi-HD", "voxceleb": "VoxCeleb", "nemo": "Nemo", "bair": "Bair"}
Found = Mapping[str, Any]
_ALL = 0.9995
"""A coverage above this is printed as 100.0 %, which goes without saying."""


def markdown(found: Found) -> str:
    """All of it: how it was made, the table beside the paper's, the comparisons, the seeds."""
    parts = (
        "# Reproduction of the comparison of FOMM with its predecessors, and of its ablation",
        made(found),
        "## Scores",
        scores(found),
        "## Does the order of the paper come out?",
        claims(found),
        "## Seeds",
        seeds(found),
    )
    return "\n\n".join(parts) + "\n"


def made(found: Found) -> str:
    """Commands and conditions."""
    settings, versions = found["settings"], found["made_with"]
    trained = sum(sum(system["training_seconds"]) for system in found["systems"])
    data = settings["data"] or "synthetic clips of two moving shapes (`fommctl preprocess synthetic-shapes`)"
    lines = (
        f"Made with `{found['command']}`: each system trained for {settings['steps']} steps from each of "
        f"{settings['seeds']} random starts, on {data}; scored on the {found['clips']} held-out clips, each "
        "reconstructed from its first frame.",
        f"fommctl {versions['fommctl']}, torch {versions['torch']}, Python {versions['python']}, "
        f"{versions['machine']}; device {settings['device']}, {settings['precision']}. The trainings took "
        f"{trained / 60:.0f} minutes of one process in all.",
    )
    return "\n\n".join([*lines, "The same by hand:", by_hand(found)])


def by_hand(found: Found) -> str:
    """The commands that do the same for one system and seed, with the names that they have in the output folder."""
    settings, system = found["settings"], found["systems"][-1]
    out, seed = settings["output"], settings["seed"]
    data, run = settings["data"] or f"{out}/data", f"{out}/runs/{system['name']}/seed-{seed}"
    preset = next((each for each in settings["systems"] if each.endswith(f"{system['name']}.yaml")), system["name"])
    words = {"--metrics": ",".join(settings["metrics"]), "--split": "test", "-o": f"{out}/evaluation/by-hand"}
    commands = [
        f"fommctl train --preset {preset} --data {data} --out {run} --max-steps {settings['steps']} "
        f"--seed {seed} --precision {settings['precision']}",
        f"fommctl evaluate --model {run}/model.safetensors --data {data} "
        + " ".join(f"{option} {value}" for option, value in words.items()),
    ]
    if not settings["data"]:
        side = system["frame_side"]
        commands.insert(0, f"fommctl preprocess synthetic-shapes -o {data} --size {side} --format mkv")
    return "\n".join(["```sh", *commands, "```"])


def scores(found: Found) -> str:
    """One row a system: our columns, then the paper's."""
    metrics, paper = found["metrics"], found["paper"]
    title = BENCHMARKS[paper["benchmark"]]
    columns = [column for column in COLUMNS if any(column in row for row in paper["rows"].values())]
    header = ["system", "stands for", "parameters"]
    header += [f"ours: {name}{_arrow(info)}" for name, info in metrics.items()]
    header += [f"paper, {title}: {column} ↓" for column in columns]
    places = _places(found)
    rows = []
    for system in found["systems"]:
        theirs = paper["rows"].get(system["row"], {})
        checked = {each["column"] for each in paper["checked"] if each["row"] == system["row"]}
        cells = [f"`{system['name']}`", system["row"] or "–", f"{system['parameters']:,}"]
        cells += [_with_interval(system["scores"][metric], places[metric]) for metric in metrics]
        cells += [_published(theirs.get(column), column in checked) for column in columns]
        rows.append(cells)
    notes = [
        "Ours: the mean over seeds and clips, with a 95 % interval (bootstrap over clips and seeds). "
        + " ".join(_meaning(name, info) for name, info in metrics.items()),
        f"The paper's numbers (Siarohin et al. 2019, tables 1 and 3, {title}) are of other clips, of 256 pixels, of "
        "large networks and long trainings: only orders compare, never values. They are recalled, not checked again"
        + (", but for those marked ✓." if paper["checked"] else "."),
    ]
    if "AED" in columns and not any(name.startswith("aed") for name in metrics):
        notes.append(
            "AED has no counterpart here: it is the distance of faces or people as recognised, which shapes are not."
        )
    return "\n\n".join([_table(header, rows, left=2), *notes])


def claims(found: Found) -> str:
    """One row a comparison and metric."""
    places = _places(found)
    rows = [
        [
            f"`{claim['better']}` before `{claim['worse']}`",
            claim["metric"],
            _with_interval(claim["difference"], places[claim["metric"]], signed=True),
            claim["ours"],
            claim["paper"] or "–",
        ]
        for claim in found["claims"]
    ]
    note = (
        "The difference of the first system less the second on the same clips, with a 95 % interval; undecided where "
        "that holds zero. The paper's column says what its table does, whose columns are not all of our metrics."
    )
    return f"{_table(['', 'metric', 'ours: difference', 'ours', 'paper'], rows, left=2)}\n\n{note}"


def seeds(found: Found) -> str:
    """The mean of each training by the first metric, and how long it took."""
    metric = next(iter(found["metrics"]))
    places = _places(found)[metric]
    rows = []
    for system in found["systems"]:
        score = system["scores"][metric]
        means = "–" if score is None else ", ".join(printed(mean, places) for mean in score["seeds"])
        times = ", ".join(f"{seconds:.0f}" for seconds in system["training_seconds"])
        rows.append([f"`{system['name']}`", means, times])
    return _table(["system", f"{metric} of each seed", "seconds of each training"], rows, left=1)


def _places(found: Found) -> dict[str, int]:
    """Decimal places for each metric: those of its smallest mean but for one digit, so that a column has one form."""
    return {metric: max(0, places_for(min(means, default=None)) - 1) for metric, means in _means(found)}


def _means(found: Found) -> Iterator[tuple[str, list[float]]]:
    for metric in found["metrics"]:
        there = [system["scores"][metric] for system in found["systems"]]
        yield metric, [abs(score["mean"]) for score in there if score is not None and score["mean"]]


def _with_interval(score: Mapping[str, Any] | None, places: int, *, signed: bool = False) -> str:
    if score is None:
        return "–"
    text = printed(score["mean"], places, signed=signed)
    if score["ci95"] is not None:
        text += " [{}, {}]".format(*(printed(end, places, signed=signed) for end in score["ci95"]))
    return text if score["coverage"] > _ALL else f"{text} ({score['coverage']:.1%} of frames)"


def _published(value: float | None, checked: bool) -> str:
    return "–" if value is None else f"{value:.3f}{' ✓' if checked else ''}"


def _arrow(info: Mapping[str, Any]) -> str:
    return " ↓" if info["lower_is_better"] else " ↑"


def _meaning(name: str, info: Mapping[str, Any]) -> str:
    unit = f" ({info['unit']})" if info["unit"] else ""
    return f"`{name}`{unit}: {info['summary'].rstrip('.')}."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """left: so many first columns are aligned to the left, the others to the right."""
    rules = [":--" if number < left else "--:" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))
