"""Manifests, journals, tables and lists: of the project itself, and those that come with data sets."""

from pathlib import Path

from fuzzing import layouts, mutation, trees
from fuzzing.campaign import Campaign

MEMORY = 1000
"""MiB."""


def test_manifests_with_other_values_are_read_or_refused(tmp_path: Path, full: bool) -> None:
    count = 1200 if full else 50
    found = layouts.text_layouts(tmp_path)
    with Campaign("manifests", tmp_path / "sandbox", MEMORY) as campaign:
        for kind, layout in found.items():
            assert campaign.run(f"whole-{kind}", layout.written(layout.tree)) == "result", campaign.last
        wholes = {kind: layout.tree for kind, layout in found.items()}
        trees.fire(campaign, wholes, count, len(trees.RAW_JSON), lambda kind, tree: found[kind].written(tree))
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files >= len(found) + count
    assert campaign.counts["result"] > count / 10
    assert campaign.counts["refused"] > count / 10


def test_manifests_with_bytes_changed_are_read_or_refused(tmp_path: Path, full: bool) -> None:
    count = 600 if full else 24
    folders = layouts.byte_layouts(tmp_path)
    for kind, layout in layouts.text_layouts(tmp_path).items():
        folders[kind] = {layout.file: layout.text(layout.tree), **layout.others}
    seeds = {kind: next(iter(files.values())) for kind, files in folders.items()}
    with Campaign("manifests", tmp_path / "sandbox", MEMORY) as campaign:
        for kind, files in folders.items():
            assert campaign.run(f"whole-{kind}", files) == "result", campaign.last
        for name, content in mutation.mutants(seeds, count):
            files = folders[name.partition("-")[2]]
            campaign.run(name, {**files, next(iter(files)): content})
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files == len(folders) + count
    assert campaign.counts["result"] > count / 10
