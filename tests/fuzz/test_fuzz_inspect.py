"""Results with bytes changed, signed ones among them: `inspect` says what they are, and never that they are whole."""

from pathlib import Path

from fuzzing import seeds
from fuzzing.campaign import Campaign

MEMORY = 1000
"""MiB."""


def test_mutated_results_are_inspected_or_refused(tmp_path: Path, full: bool) -> None:
    (tmp_path / "seeds").mkdir()
    whole = seeds.results(tmp_path / "seeds")
    count = 1000 if full else 12
    with Campaign("inspect", tmp_path / "sandbox", MEMORY) as campaign:
        campaign.fire(whole, count)
    assert campaign.counts["result"] > count / 10
