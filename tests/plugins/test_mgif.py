"""MGif: folders of GIFs."""

from pathlib import Path

import pytest
import raw_layouts

from fommctl.api import testing
from fommctl.host import Host
from fommctl.media.reader import Reader
from fommctl_mgif.dataset import MovingGifs

ROBOTS = Path(__file__).parents[3] / "shared/robots"


def test_the_published_folders(tmp_path: Path, host: Host) -> None:
    root = raw_layouts.make_mgif(tmp_path)
    testing.check_dataset(host.datasets["mgif"], root)
    clips = list(MovingGifs().clips(root))
    # 00000.gif in train and in test are different animals.
    assert [(clip.identity, clip.split) for clip in clips] == [
        ("00000", "train"),
        ("00001", "train"),
        ("test-00000", "test"),
    ]
    assert clips[0].path is not None
    assert [int(frame.pixels[0, 0, 0]) for frame in Reader(clips[0].path)] == [0, 60, 120]


def test_raw_gifs_keep_their_names(tmp_path: Path, host: Host) -> None:
    root = raw_layouts.make_mgif(tmp_path, ("cat#1.gif", "cat__2.GIF", "dogs/run cycle.gif"))
    (root / "dogs/poster.png").write_bytes(b"")
    (root / "movie.mp4").write_bytes(b"")
    testing.check_dataset(host.datasets["mgif"], root)
    clips = list(MovingGifs().clips(root))
    assert [clip.identity for clip in clips] == ["cat_1", "cat__2", "run cycle"]
    assert {clip.split for clip in clips} == {None}


def test_preprocess(tmp_path: Path, run_cli) -> None:
    root, out = raw_layouts.make_mgif(tmp_path / "raw"), tmp_path / "out"
    (root / "train/broken.gif").write_bytes(b"GIF89a")
    result = run_cli("preprocess", "mgif", root, "-o", out, "--format", "png", "--size", 16, "--workers", 1)
    assert result.code == 6
    assert "broken" in (out / "failed.jsonl").read_text()
    found = {path.parent.relative_to(out).as_posix() for path in out.glob("*/*/*.png")}
    assert found == {"train/00000#00000", "train/00001#00001", "test/test-00000#00000"}


@pytest.mark.skipif(not ROBOTS.is_dir(), reason="the GIFs of ../shared are absent")
def test_real_gifs(host: Host) -> None:
    testing.check_dataset(host.datasets["mgif"], ROBOTS)
    assert len(list(MovingGifs().clips(ROBOTS))) == 5
