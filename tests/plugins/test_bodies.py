"""Tai-Chi-HD, Fashion and plain folders of bodies, with miniatures of their raw layouts, and body joints."""

import sys
from pathlib import Path

import numpy as np
import pytest
import raw_layouts
from raw_layouts import TABLE_SIZE, row, table, video

from fommctl.api import InputError, MissingError, testing
from fommctl.host import Host
from fommctl_bodies.datasets import Bodies, Fashion, TaiChi
from fommctl_bodies.pose import person

SHARED = Path(__file__).parents[3] / "shared/bodies"


def test_taichi(tmp_path: Path, host: Host) -> None:
    root = raw_layouts.make_taichi(tmp_path)
    testing.check_dataset(host.datasets["taichi"], root)
    clips = list(TaiChi().clips(root))
    # Preceded by identity and `#`, each has its published name.
    assert [(clip.identity, clip.name, clip.split) for clip in clips] == [
        ("u6rJiF-gPx8", "000000#000010", "train"),
        ("u6rJiF-gPx8", "000010#000020", "train"),
        ("uEqWZ9S_-Lw", "000003#000009", "test"),
        ("uEqWZ9S_-Lw", "000011#000029", "test"),
    ]
    assert (clips[3].start, clips[3].end, clips[3].box_frame) == (0.44, 1.16, TABLE_SIZE)


def test_the_first_table_of_taichi_has_no_splits(tmp_path: Path) -> None:
    header = raw_layouts.TAICHI_HEADER.removesuffix(",partition")
    table(tmp_path / "taichi-metadata.csv", header, [row("v", 0, 5)])
    video(tmp_path / "v.mp4")
    assert [clip.split for clip in TaiChi().clips(tmp_path)] == [None]


def test_preprocess_of_taichi(tmp_path: Path, run_cli) -> None:
    root, out = raw_layouts.make_taichi(tmp_path / "raw"), tmp_path / "out"
    result = run_cli("preprocess", "taichi", root, "-o", out, "--size", 16, "--workers", 1)
    assert result.code == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.mp4")) == [
        "test/uEqWZ9S_-Lw#000003#000009.mp4",
        "test/uEqWZ9S_-Lw#000011#000029.mp4",
        "train/u6rJiF-gPx8#000000#000010.mp4",
        "train/u6rJiF-gPx8#000010#000020.mp4",
    ]


def test_fashion(tmp_path: Path, host: Host) -> None:
    root = raw_layouts.make_fashion(tmp_path)
    testing.check_dataset(host.datasets["fashion"], root)
    expected = [("91D23ZVV6NS", "train"), ("A1P+0ZhMAiS", "train"), ("91hECpvrRSS", "test")]
    assert [(clip.identity, clip.split) for clip in Fashion().clips(root)] == expected
    for split in ("train", "test"):
        (root / f"fashion_{split}.txt").unlink()
    assert [(clip.identity, clip.split) for clip in Fashion().clips(root)] == expected


def test_what_the_lists_of_fashion_name_may_be_missing(tmp_path: Path) -> None:
    root = raw_layouts.make_fashion(tmp_path)
    (root / "train/91D23ZVV6NS.mp4").unlink()
    video(root / "train/not-listed.mp4")
    # As saved by a Windows editor, with a repeated line and with the parameters that shops append to addresses.
    list_path = root / "fashion_train.txt"
    lines = list_path.read_text().splitlines()
    list_path.write_bytes("\r\n".join([*lines, "", f"{lines[1]}?x=/y"]).encode("utf-8-sig"))
    clips = list(Fashion().clips(root))
    assert [clip.name for clip in clips] == ["91D23ZVV6NS", "A1P+0ZhMAiS", "91hECpvrRSS"]
    assert [clip.path for clip in clips if clip.path and not clip.path.exists()] == [root / "train/91D23ZVV6NS.mp4"]


@pytest.mark.parametrize("content", [b"<html>\n404\n", b"https://x/..\n", b"https://x/a\\..\\b.mp4\n", b"\xff\xfe"])
def test_lists_of_fashion_that_are_none(tmp_path: Path, content: bytes) -> None:
    root = raw_layouts.make_fashion(tmp_path)
    (root / "fashion_test.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"fashion_test\.txt (names|cannot be read)"):
        list(Fashion().clips(root))


def test_lists_without_videos_are_an_error(tmp_path: Path) -> None:
    root = raw_layouts.make_fashion(tmp_path, {"train": ("a",), "test": ("b",)})
    for path in root.glob("*/*.mp4"):
        path.unlink()
    with pytest.raises(InputError, match="contains no Fashion videos"):
        list(Fashion().clips(root))


def test_a_plain_folder_has_an_identity_a_clip(tmp_path: Path, host: Host) -> None:
    video(tmp_path / "studio__dance__one.mp4")
    video(tmp_path / "studio__dance__two.mp4")
    video(tmp_path / "eva#three.mp4")
    testing.check_dataset(host.datasets["bodies"], tmp_path)
    identities = [clip.identity for clip in Bodies().clips(tmp_path)]
    assert identities == ["eva", "studio__dance__one", "studio__dance__two"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the bodies of ../shared are absent")
def test_real_bodies(host: Host) -> None:
    testing.check_dataset(host.datasets["bodies"], SHARED)
    clips = list(Bodies().clips(SHARED))
    assert len(clips) == len({clip.identity for clip in clips}) == 18


def rows_of_mediapipe() -> np.ndarray:
    """Return (33, 3): x and y relative to the picture, and visibility; point n is at (n + 0.5) / 100 in both."""
    place = (np.arange(33) + 0.5) / 100
    return np.stack([place, place, np.ones(33)], 1)


def test_joints_come_in_the_order_of_openpose() -> None:
    (body,) = person(rows_of_mediapipe(), 200, 100)
    neck = (11 + 12) / 2
    right, left = [12, 14, 16], [11, 13, 15]
    legs = [24, 26, 28, 23, 25, 27]
    eyes_and_ears = [5, 2, 8, 7]
    # Point n is at n in a picture of 100 pixels, at 2n + 0.5 in one of 200.
    numbers = np.array([0, neck, *right, *left, *legs, *eyes_and_ears])
    assert body.landmarks is not None
    np.testing.assert_allclose(body.landmarks, np.stack([numbers, 2 * numbers + 0.5], 1), rtol=1e-6)
    box = body.box
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0, 0.5, 28, 56.5))
    assert body.score == 1


def test_hidden_joints_and_joints_outside_are_absent() -> None:
    rows = rows_of_mediapipe()
    rows[12, 2] = 0.49
    rows[16, :2] = (0.5, 1.01)
    rows[27, :2] = (-0.01, 0.5)
    (body,) = person(rows, 100, 100)
    assert body.landmarks is not None
    # The right shoulder, and with it the neck; the right wrist; the left ankle.
    assert np.flatnonzero(np.isnan(body.landmarks).any(1)).tolist() == [1, 2, 4, 13]
    assert body.box.left == 0
    assert body.score == pytest.approx((16 + 2 * 0.49) / 18)


def test_nobody_is_there_where_fewer_than_two_joints_are_seen() -> None:
    rows = rows_of_mediapipe()
    rows[1:, 2] = 0
    assert person(rows, 100, 100) == []


def test_without_mediapipe_it_is_said_what_to_install(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingError, match="MediaPipe cannot be loaded") as error:
        host.detectors["pose"].build()
    assert "fommctl[mesh]" in error.value.hint
