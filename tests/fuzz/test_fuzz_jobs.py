"""Files of jobs, and the status file of a batch."""

from pathlib import Path

from fuzzing import layouts, mutation, trees
from fuzzing.campaign import Campaign

MEMORY = 1500
"""MiB; torch, the model and PyAV are loaded."""


def test_jobs_with_other_values_are_planned_or_refused(tmp_path: Path, full: bool) -> None:
    count = 700 if full else 14
    found = layouts.job_layouts(tmp_path)
    with Campaign("jobs", tmp_path / "sandbox", MEMORY) as campaign:
        for kind, layout in found.items():
            assert campaign.run(f"whole-{kind}", layout.written(layout.tree)) == "result", campaign.last
        wholes = {kind: layout.tree for kind, layout in found.items()}
        trees.fire(campaign, wholes, count, len(trees.RAW_JSON), lambda kind, tree: found[kind].written(tree))
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files >= len(found) + count
    assert campaign.counts["result"] > count / 10
    assert campaign.counts["refused"]


def test_jobs_with_bytes_changed_are_planned_or_refused(tmp_path: Path, full: bool) -> None:
    count = 400 if full else 6
    found = layouts.job_layouts(tmp_path)
    seeds = {kind: layout.text(layout.tree) for kind, layout in found.items()}
    with Campaign("jobs", tmp_path / "sandbox", MEMORY) as campaign:
        for name, content in mutation.mutants(seeds, count):
            layout = found[name.partition("-")[2]]
            campaign.run(name, {**layout.others, layout.file: content})
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files == count
    assert campaign.counts["result"]
