"""Videos, animations and sound files with bytes changed."""

from fuzzing import mutation, seeds
from fuzzing.campaign import Campaign

MEMORY = 1500
"""MiB."""


def test_mutated_media_are_read_or_refused(tmp_path, full):
    (tmp_path / "seeds").mkdir()
    whole = seeds.media(tmp_path / "seeds")
    count = 1000 if full else 42
    with Campaign("media", tmp_path / "sandbox", MEMORY) as campaign:
        for name, content in whole.items():
            assert campaign.run(name, content) == ("refused" if name.endswith(".wav") else "result"), campaign.last
        for name, content in mutation.mutants(whole, count):
            campaign.run(name, content)
    print(campaign.verdict())
    assert not campaign.findings, campaign.verdict()
    assert campaign.files == len(whole) + count
    assert campaign.counts["result"] > count / 10
    assert campaign.counts["refused"] > count / 10
