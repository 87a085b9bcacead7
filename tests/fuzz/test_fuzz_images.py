"""Still pictures with bytes changed: every format, and every kind of pixels."""

from fuzzing import seeds
from fuzzing.campaign import Campaign

MEMORY = 1500
"""MiB."""


def test_mutated_images_are_read_or_refused(tmp_path, full):
    (tmp_path / "seeds").mkdir()
    whole = seeds.images(tmp_path / "seeds")
    count = 1000 if full else 42
    with Campaign("images", tmp_path / "sandbox", MEMORY) as campaign:
        campaign.fire(whole, count)
    assert campaign.counts["result"] > count / 10
    assert campaign.counts["refused"] > count / 10
