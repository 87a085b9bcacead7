"""Presets with bytes changed, and with values that they should not have."""

from pathlib import Path

import yaml
from fuzzing import mutation, trees
from fuzzing.campaign import Campaign

from fommctl.presets.preset import presets_root

MEMORY = 3000
"""MiB: networks are built of what passes, at most MOST_VALUES numbers."""


def shipped() -> dict[str, bytes]:
    """Presets of every backend, with `backend:` and without."""
    names = ("smoke", "faces-mini", "small-monkeynet", "small-x2face", "bair-256")
    return {f"{name}.yaml": (presets_root() / f"{name}.yaml").read_bytes() for name in names}


def test_presets_with_bytes_changed_are_read_or_refused(tmp_path: Path, full: bool) -> None:
    count = 500 if full else 10
    with Campaign("presets", tmp_path, MEMORY) as campaign:
        for name, content in mutation.mutants(shipped(), count):
            campaign.run(name, content)
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files == count


def test_presets_with_other_values_are_read_or_refused(tmp_path: Path, full: bool) -> None:
    count = 600 if full else 24
    whole = {name: yaml.safe_load(content) for name, content in shipped().items()}
    with Campaign("presets", tmp_path, MEMORY) as campaign:
        trees.fire(campaign, whole, count, len(trees.RAW_YAML), lambda name, tree: trees.as_yaml(tree))
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files >= count
    assert campaign.counts["result"] > count / 50
    assert campaign.counts["refused"] > count / 10
