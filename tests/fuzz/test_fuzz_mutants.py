"""Files of every kind that fommctl reads, with bytes, values or tensors changed: each is read or rejected, by the rule
of `fuzzing.campaign`. One process takes all files of a kind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from fuzzing import layouts, mutation, seeds, trees
from fuzzing.campaign import Campaign

from fommctl.presets.preset import presets_root

MEMORY = {
    "images": 1500, "media": 1500, "inspect": 1000, "checkpoints": 1000, "manifests": 1000,
    # Includes torch, the model and PyAV.
    "jobs": 1500,
    # Networks are built from valid files, with at most MOST_VALUES values.
    "presets": 3000,
}  # fmt: skip
"""Memory limit, MiB."""
Campaigns = Callable[[str], Campaign]


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaigns]:
    opened: dict[str, Campaign] = {}

    def campaign(target: str) -> Campaign:
        if target not in opened:
            opened[target] = Campaign(target, tmp_path_factory.mktemp(target), MEMORY[target]).__enter__()
        return opened[target]

    yield campaign
    for each in opened.values():
        each.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("target", "make", "sample", "results", "refused"),
    [
        ("images", seeds.images, 42, 1 / 10, 1 / 10),
        ("media", seeds.media, 42, 1 / 10, 1 / 10),
        # Including signed ones: `inspect` describes them, but never as intact.
        ("inspect", seeds.results, 12, 1 / 10, -1),
        ("checkpoints", seeds.checkpoints, 40, 1 / 50, 1 / 10),
    ],
)
def test_bytes_of_files(
    target: str,
    make: Callable[[Path], dict[str, bytes]],
    sample: int,
    results: float,
    refused: float,
    campaigns: Campaigns,
    tmp_path: Path,
    full: bool,
) -> None:
    whole, count, campaign = make(tmp_path), 1000 if full else sample, campaigns(target)
    with campaign.judged(len(whole) + count, count * results, count * refused):
        for name, content in whole.items():
            assert campaign.run(name, content) == ("refused" if name.endswith(".wav") else "result"), campaign.last
        for name, content in mutation.mutants(whole, count):
            campaign.run(name, content)


def test_tensors_of_checkpoints(campaigns: Campaigns, tmp_path: Path, full: bool) -> None:
    count, campaign = 150 if full else 8, campaigns("checkpoints")
    with campaign.judged(count, count / 10):
        for number in range(count):
            path = tmp_path / f"{number:05d}-tensors.pth.tar"
            seeds.changed_checkpoint(np.random.default_rng((mutation.SEED, number)), path)
            campaign.feed(path.name, path)


@pytest.mark.parametrize(
    ("target", "make", "most", "sample", "refused"),
    [("jobs", layouts.job_layouts, 700, 14, 0), ("manifests", layouts.text_layouts, 1200, 50, 1 / 10)],
)
def test_values(
    target: str,
    make: Callable,
    most: int,
    sample: int,
    refused: float,
    campaigns: Campaigns,
    tmp_path: Path,
    full: bool,
) -> None:
    """Job files, status files, manifests, journals, tables and lists, including those of data sets."""
    count, found, campaign = most if full else sample, make(tmp_path), campaigns(target)
    with campaign.judged(len(found) + count, count / 10, count * refused):
        for kind, layout in found.items():
            assert campaign.run(f"whole-{kind}", layout.written(layout.tree)) == "result", campaign.last
        given = {kind: layout.tree for kind, layout in found.items()}
        trees.fire(campaign, given, count, len(trees.RAW_JSON), lambda kind, tree: found[kind].written(tree))


@pytest.mark.parametrize(("target", "most", "sample", "results"), [("jobs", 400, 6, 0), ("manifests", 600, 24, 0.1)])
def test_bytes_of_folders(
    target: str, most: int, sample: int, results: float, campaigns: Campaigns, tmp_path: Path, full: bool
) -> None:
    count, campaign = most if full else sample, campaigns(target)
    folders = layouts.byte_layouts(tmp_path) if target == "manifests" else {}
    texts = layouts.text_layouts(tmp_path) if target == "manifests" else layouts.job_layouts(tmp_path)
    folders |= {kind: {each.file: each.text(each.tree), **each.others} for kind, each in texts.items()}
    changed = {kind: next(iter(files.values())) for kind, files in folders.items()}
    with campaign.judged(len(folders) + count, count * results):
        for kind, files in folders.items():
            assert campaign.run(f"whole-{kind}", files) == "result", campaign.last
        for name, content in mutation.mutants(changed, count):
            files = folders[name.partition("-")[2]]
            campaign.run(name, {**files, next(iter(files)): content})


def test_presets(campaigns: Campaigns, full: bool) -> None:
    """Presets of every backend, with and without `backend:`."""
    names = ("smoke", "faces-mini", "small-monkeynet", "small-x2face", "bair-256")
    shipped = {f"{name}.yaml": (presets_root() / f"{name}.yaml").read_bytes() for name in names}
    count, campaign = 500 if full else 10, campaigns("presets")
    with campaign.judged(count):
        for name, content in mutation.mutants(shipped, count):
            campaign.run(name, content)
    count = 600 if full else 24
    given = {name: yaml.safe_load(content) for name, content in shipped.items()}
    with campaign.judged(count, count / 50, count / 10):
        trees.fire(campaign, given, count, len(trees.RAW_YAML), lambda name, tree: trees.as_yaml(tree))
