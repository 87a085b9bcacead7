"""Every data set of this installation, with a miniature of its raw layout: its contract, and the result of
`preprocess`."""

import json
from pathlib import Path

import numpy as np
import pytest
from miniatures import MINIATURES
from PIL import Image
from raw_layouts import shade

from fommctl.api import testing
from fommctl.datasets.clips import find_clips
from fommctl.host import Host, load_host
from fommctl.media.random_access import count_frames
from fommctl.preprocess.run import PreprocessConfig, run

MADE = {"synthetic", "synthetic-256", "synthetic-reach", "synthetic-shapes", "synthetic-turning"}
"""Data sets that need no raw folder."""


def test_every_data_set_has_a_miniature() -> None:
    assert set(load_host().datasets) == set(MINIATURES) | MADE


@pytest.mark.parametrize("name", MINIATURES)
def test_contract_on_its_raw_layout(name: str, tmp_path: Path, host: Host) -> None:
    root = MINIATURES[name][0](tmp_path / "raw")
    testing.check_dataset(host.datasets[name], root)


@pytest.mark.parametrize("name", MINIATURES)
def test_preprocess_makes_a_training_set_of_it(name: str, tmp_path: Path, host: Host) -> None:
    make, clips, frames = MINIATURES[name]
    config = PreprocessConfig(dataset=name, raw=make(tmp_path / "raw"), output=tmp_path / "out", size=16, workers=0)
    result = run(config, host)
    missing = ["id10270#tCq2LcKO6xY#000000#000025"] if name == "voxceleb" else []
    assert [each["clip"] for each in result.failed] == missing
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert (len(lines), sum(line["frames"] for line in lines)) == (clips, frames)
    for line in lines:
        assert count_frames(tmp_path / "out" / line["file"]) == line["frames"]
        assert (config.raw / line["source"]).exists() if line["source"] else name in ("bair", "lerobot")
    # Training finds the same clips with the same identities and splits.
    for split in ("train", "test"):
        found = {(clip.path.name, clip.identity) for clip in find_clips(tmp_path / "out", split)}
        assert found == {(Path(line["file"]).name, line["identity"]) for line in lines if line["split"] == split}
    assert not {line["identity"] for line in lines if line["split"] == "train"} & {
        line["identity"] for line in lines if line["split"] == "test"
    }


def test_a_chunk_of_a_table_is_cut_to_its_frames_and_its_box(tmp_path: Path, host: Host) -> None:
    """Rows count frames of 25 per second in pictures of 64 x 48; the raw video has twice the rate and size."""
    raw = MINIATURES["voxceleb"][0](tmp_path / "raw")
    config = PreprocessConfig(
        dataset="voxceleb", raw=raw, output=tmp_path / "out", size=80, format="png", fit="stretch", workers=0, limit=1
    )
    run(config, host)
    pictures = sorted((tmp_path / "out/train/id10005#WMh3ye5tBsE#000005#000012").iterdir())
    read = [np.asarray(Image.open(path)) for path in pictures]
    assert [picture[40, 40].tolist() for picture in read] == [[shade(index), 40, 40] for index in range(10, 24)]
    # The box fills the square, except for what bicubic resampling adds from its surroundings.
    assert all((picture[3:-3, 3:-3] == picture[40, 40]).all() for picture in read)
