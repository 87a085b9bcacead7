"""Videos, animations and sound files with bytes changed."""

from fuzzing import seeds
from fuzzing.campaign import Campaign

MEMORY = 1500
"""MiB."""


def test_mutated_media_are_read_or_refused(tmp_path, full):
    (tmp_path / "seeds").mkdir()
    whole = seeds.media(tmp_path / "seeds")
    count = 1000 if full else 42
    with Campaign("media", tmp_path / "sandbox", MEMORY) as campaign:
        campaign.fire(whole, count, {".wav": "refused"})
    assert campaign.counts["result"] > count / 10
    assert campaign.counts["refused"] > count / 10
