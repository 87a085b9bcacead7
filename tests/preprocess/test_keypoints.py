"""True keypoints of prepared clips: those of the written frames, in their coordinates."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from media_factory import write_clip

from fommctl.api import Box, ClipRecord, InputError
from fommctl.api.folders import plain_folder
from fommctl.datasets.clips import find_clips
from fommctl.datasets.keypoints import keypoints_path, read_keypoints
from fommctl.host import load_host
from fommctl.preprocess.clip import ClipJob, ClipOptions, make_clip, viewed
from fommctl.preprocess.run import PreprocessConfig, run
from fommctl_synthetic.dataset import Synthetic


def prepared(folder: Path, **more: object) -> Path:
    config = {"dataset": "synthetic", "raw": None, "output": folder, "size": 64, "format": "png", "workers": 0}
    result = run(PreprocessConfig(**{**config, "limit": 2, **more}), load_host())  # type: ignore[arg-type]
    assert not result.failed
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("format", ["png", "mkv"])
def test_synthetic_clips_have_theirs_beside_them(tmp_path: Path, format: str) -> None:
    folder = prepared(tmp_path / "out", format=format)
    scenes = Synthetic(size=64).scenes
    for line in lines(folder):
        path = folder / line["file"]
        points = read_keypoints(path)
        np.testing.assert_allclose(points, scenes[line["name"]][1].visible_keypoints(), atol=1e-12)
        beside = keypoints_path(path)
        assert beside.name == f"{line['identity']}#{line['name']}.keypoints.npy"
        assert line["keypoints"] == sha256(beside.read_bytes()).hexdigest()
    clips = find_clips(folder, "train")
    assert [clip.path for clip in clips] == [folder / line["file"] for line in lines(folder)]
    assert all(clip.frames == 24 for clip in clips)
    assert [record.path for record in plain_folder(folder)] == [clip.path for clip in clips]


def test_they_are_made_again_where_they_are_missing_and_follow_the_clip(tmp_path: Path) -> None:
    folder, host = prepared(tmp_path / "out"), load_host()

    def again(**more: object) -> tuple[int, int]:
        config = {"dataset": "synthetic", "raw": None, "output": folder, "size": 64, "format": "png", "workers": 0}
        result = run(PreprocessConfig(**{**config, "limit": 2, **more}), host)  # type: ignore[arg-type]
        return result.written, result.kept

    first, second = (keypoints_path(folder / line["file"]) for line in lines(folder))
    truth = first.read_bytes()
    assert again() == (0, 2)
    first.unlink()
    assert again() == (1, 1)
    second.write_bytes(second.read_bytes()[:-1] + b"\x00")
    assert again() == (1, 1)
    assert first.read_bytes() == truth
    # The other format names them alike.
    assert again(format="mkv") == (2, 0)
    assert first.read_bytes() == truth
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".mkv", ".mkv", ".npy", ".npy"]
    # A folder from before keypoints were written is made again, once.
    old = [{name: value for name, value in line.items() if name != "keypoints"} for line in lines(folder)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps({**line, "state": "old"}) + "\n" for line in old))
    assert again(format="mkv") == (2, 0)
    assert again(format="mkv") == (0, 2)


POINTS = np.stack([np.full((3, 2), 0.12 * index) for index in range(10)]) - 0.4


def ten_points() -> np.ndarray:
    return POINTS


def sixteen_by_eight() -> list[np.ndarray]:
    return [np.full((8, 16, 3), 20 * index, np.uint8) for index in range(10)]


def made(target: Path, *, fit: str = "pad", size: int = 16, **record: object) -> np.ndarray | None:
    options = ClipOptions(size=size, format="png", fit=fit, audio=False)  # type: ignore[arg-type]
    clip = ClipRecord(name="c", identity="i", keypoints=ten_points, **record)  # type: ignore[arg-type]
    assert make_clip(ClipJob(record=clip, target=target, options=options)).keypoints is not None
    return read_keypoints(target)


def test_only_those_of_the_frames_that_were_cut_out(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "raw.mp4", frames=12, width=16, height=16)
    of_file = made(tmp_path / "file", path=raw, start=0.12, end=0.28)
    of_frames = made(tmp_path / "frames", fit="stretch", frames=sixteen_by_eight, start=0.12, end=0.28)
    np.testing.assert_allclose(of_file, POINTS[3:7])
    # Eight rows became sixteen: their first and last centres moved a quarter of an old row towards the middle.
    np.testing.assert_allclose(of_frames, POINTS[3:7] * (1, 14 / 15), atol=1e-12)
    longer = made(tmp_path / "longer", path=raw)
    np.testing.assert_allclose(longer[:10], POINTS)  # type: ignore[index]
    assert np.isnan(longer[10:]).all()  # type: ignore[index]


def test_squares_and_boxes_move_them(tmp_path: Path) -> None:
    """16 x 8 pixels: the middle row and column are between pixels, 7.5 and 3.5 from the first."""
    whole = made(tmp_path / "pad", frames=sixteen_by_eight)
    # Padded to 16 x 16 with four rows above: y = p is at (p + 1) / 2 * 7 + 4.
    np.testing.assert_allclose(whole[..., 0], POINTS[..., 0])  # type: ignore[index]
    np.testing.assert_allclose(whole[..., 1], POINTS[..., 1] * 7 / 15, atol=1e-12)  # type: ignore[index]
    # The middle 8 x 8 at twice the size: edges stay in place, so the centre of the first pixel moves from 4 to 0.5.
    cut = made(tmp_path / "crop", fit="crop", frames=sixteen_by_eight)
    x = ((POINTS[..., 0] + 1) / 2 * 15 + 0.5 - 4) * 2 - 0.5
    inside = x <= 15
    np.testing.assert_allclose(cut[..., 0][inside], (2 * x / 15 - 1)[inside])  # type: ignore[index]
    assert np.isnan(cut[~inside]).all()  # type: ignore[index]
    assert (~inside).sum() == 6


def test_a_box_by_hand() -> None:
    # Pixel (30, 20) of 101 x 51 in a box of 20 x 20 from (20, 10): its middle; at 40 pixels, it is at (20.5, 20.5).
    point = np.array([[2 * 30 / 100 - 1, 2 * 20 / 50 - 1]])
    np.testing.assert_allclose(viewed(point, (101, 51), Box(20, 10, 40, 30), 40), 2 * 20.5 / 39 - 1)
    assert np.isnan(viewed(point, (101, 51), Box(40, 10, 60, 30), 40)).all()
    hidden = np.array([[np.nan, np.nan], [1.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(viewed(hidden, (64, 64), None, 64), hidden)


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="these are not keypoints"):
        make_clip(
            ClipJob(
                record=ClipRecord(name="c", identity="i", frames=sixteen_by_eight, keypoints=lambda: np.zeros((4, 2))),
                target=tmp_path / "c",
                options=ClipOptions(size=16, format="png", fit="pad", audio=False),
            )
        )
    assert not list(tmp_path.iterdir())
    (tmp_path / "clip.keypoints.npy").write_bytes(b"\x93NUMPY broken")
    for content in (b"\x93NUMPY broken", b"", b"PK\x03\x04", json.dumps([1]).encode()):
        (tmp_path / "clip.keypoints.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"clip\.keypoints\.npy"):
            read_keypoints(tmp_path / "clip.mp4")
    assert read_keypoints(tmp_path / "other.mp4") is None
