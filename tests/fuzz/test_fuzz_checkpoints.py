"""Model files with bytes or tensors changed: both formats of torch, native ones, and checkpoints of runs."""

import numpy as np
from fuzzing import mutation, seeds
from fuzzing.campaign import Campaign

MEMORY = 1000
"""MiB."""


def test_mutated_checkpoints_are_read_or_refused(tmp_path, full):
    (tmp_path / "seeds").mkdir()
    whole = seeds.checkpoints(tmp_path / "seeds")
    count = 1000 if full else 40
    with Campaign("checkpoints", tmp_path / "sandbox", MEMORY) as campaign:
        campaign.fire(whole, count)
    assert campaign.counts["result"] > count / 50
    assert campaign.counts["refused"] > count / 10


def test_checkpoints_with_other_tensors_are_read_or_refused(tmp_path, full):
    count = 150 if full else 8
    with Campaign("checkpoints", tmp_path / "sandbox", MEMORY) as campaign:
        for number in range(count):
            path = tmp_path / f"{number:05d}-tensors.pth.tar"
            seeds.changed_checkpoint(np.random.default_rng((mutation.SEED, number)), path)
            campaign.feed(path.name, path)
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files == count
    assert campaign.counts["result"] > count / 10
