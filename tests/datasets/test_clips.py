"""Clips in folders: which files count, identities and splits."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from media_factory import moving_square, solid, truncate, write_clip, write_frames, write_gif
from PIL import Image

from fommctl.datasets.clips import Clip, find_clips, read_pairs_list
from fommctl.errors import InputError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "faces"


def clip(path: Path, frames: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, frames=frames, width=16, height=16)


def still(path: Path, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(path)
    return path


def found(clips: tuple[Clip, ...]) -> list[tuple[str, str, int]]:
    return [(clip.name, clip.identity, clip.frames) for clip in clips]


def published(root: Path) -> Path:
    clip(root / "train" / "id1#a.mp4")
    clip(root / "train" / "id1#b.mp4", frames=5)
    clip(root / "test" / "id2#c.mp4")
    return root


def test_folders_train_and_test_are_the_splits(tmp_path: Path) -> None:
    root = published(tmp_path)
    assert found(find_clips(root, "train")) == [("id1#a.mp4", "id1", 3), ("id1#b.mp4", "id1", 5)]
    assert found(find_clips(root, "test")) == [("id2#c.mp4", "id2", 3)]


def test_all_that_the_published_loader_takes(tmp_path: Path) -> None:
    train = published(tmp_path) / "train"
    write_gif(train / "anim.GIF", [solid(16, 16, (60 * index, 0, 0)) for index in range(4)], [40] * 4)
    write_frames(train / "folder", [moving_square(index, 16, 16) for index in range(6)], pattern="x%dy.png")
    write_frames(train / "one", [moving_square(0, 16, 16)])
    Image.fromarray(np.zeros((8, 24), np.uint8)).save(train / "strip.png")
    still(train / "portrait.jpg")
    (train / "notes.txt").write_text("not media")
    still(train / ".hidden.png")
    assert found(find_clips(tmp_path, "train")) == [
        ("anim.GIF", "anim", 4),
        ("folder", "folder", 6),
        ("id1#a.mp4", "id1", 3),
        ("id1#b.mp4", "id1", 5),
        ("one", "one", 1),
        ("portrait.jpg", "portrait", 1),
        ("strip.png", "strip", 3),
    ]
    assert [clip.name for clip in find_clips(tmp_path, "train") if clip.still] == ["one", "portrait.jpg"]


def test_folders_of_identities_as_published_for_sampling_by_identity(tmp_path: Path) -> None:
    published(tmp_path)
    clip(tmp_path / "train" / "id7" / "video1" / "0001.mp4")
    clip(tmp_path / "train" / "id7" / "video2" / "0001.mp4")
    names = [(clip.name, clip.identity) for clip in find_clips(tmp_path, "train")]
    assert names[2:] == [("id7/video1/0001.mp4", "id7"), ("id7/video2/0001.mp4", "id7")]


def test_elsewhere_only_numbered_pictures_make_a_clip(tmp_path: Path) -> None:
    write_frames(tmp_path / "walk", [moving_square(index, 16, 16) for index in range(3)], pattern="walk_%03d.png")
    write_frames(tmp_path / "stills", [moving_square(index, 16, 16) for index in range(2)])
    still(tmp_path / "faces" / "a__1.png")
    still(tmp_path / "faces" / "b__2.png")
    clips = find_clips(tmp_path, "train", test_fraction=0)
    assert found(clips) == [
        ("faces/a__1.png", "a", 1),
        ("faces/b__2.png", "b", 1),
        ("stills/00001.png", "00001", 1),
        ("stills/00002.png", "00002", 1),
        ("walk", "walk", 3),
    ]


def test_the_split_is_by_identity_and_by_the_hash_of_its_name(tmp_path: Path) -> None:
    people = [f"person{number}" for number in range(11)]
    for person in people:
        clip(tmp_path / f"{person}__a.mp4")
        clip(tmp_path / f"{person}__b.mp4")
    for number in range(4):
        still(tmp_path / f"painting{number}.png")
    ordered = sorted(people, key=lambda name: hashlib.sha256(f"5:{name}".encode()).hexdigest())
    expected = set(ordered[: math.ceil(0.2 * 11)])
    test, train = (find_clips(tmp_path, split, test_fraction=0.2, seed=5) for split in ("test", "train"))
    assert {clip.identity for clip in test if not clip.still} == expected
    assert {clip.identity for clip in train if not clip.still} == set(people) - expected
    assert [sum(clip.still for clip in clips) for clips in (test, train)] == [1, 3]
    assert len(test) + len(train) == 26
    assert {clip.path for clip in test}.isdisjoint(clip.path for clip in train)


def test_one_identity_alone_is_for_training(tmp_path: Path) -> None:
    clip(tmp_path / "me__a.mp4")
    clip(tmp_path / "me__b.mp4")
    assert len(find_clips(tmp_path, "train")) == 2
    assert find_clips(tmp_path, "test") == ()


@pytest.mark.parametrize("kind", ["manifest.jsonl", "index.csv"])
def test_a_manifest_gives_identities_and_saves_counting(kind: str, tmp_path: Path) -> None:
    published(tmp_path)
    if kind == "index.csv":
        (tmp_path / kind).write_text("\ufefffile,identity,frames\ntrain/id1#a.mp4,Ann,77\ntrain/id1#b.mp4,,\n", "utf-8")
    else:
        rows = [{"file": "train/id1#a.mp4", "identity": "Ann", "frames": 77}, {"file": "train/id1#b.mp4"}, {"x": 1}]
        (tmp_path / kind).write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert found(find_clips(tmp_path, "train")) == [("id1#a.mp4", "Ann", 77), ("id1#b.mp4", "id1", 5)]


@pytest.mark.parametrize("file", ["../outside.mp4", "train/../../outside.mp4", "{parent}/outside.mp4"])
def test_a_manifest_that_leads_outside_is_refused(file: str, tmp_path: Path) -> None:
    root = published(tmp_path / "data")
    clip(tmp_path / "outside.mp4")
    row = {"file": file.format(parent=tmp_path), "identity": "x"}
    (root / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="is outside its folder"):
        find_clips(root, "train")


def test_clips_may_be_links_to_elsewhere(tmp_path: Path) -> None:
    root = published(tmp_path / "data")
    (root / "train" / "link.mp4").symlink_to(clip(tmp_path / "elsewhere.mp4", frames=4))
    (root / "manifest.jsonl").write_text(json.dumps({"file": "train/link.mp4", "identity": "x"}) + "\n")
    assert ("link.mp4", "x", 4) in found(find_clips(root, "train"))


def test_a_broken_manifest_is_an_input_error(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"manifest\.jsonl, line 1: not a JSON object"):
        find_clips(tmp_path, "train")


def test_unreadable_files_are_logged_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published(tmp_path)
    truncate(clip(tmp_path / "train" / "cut.mp4"), 0.3)
    (tmp_path / "train" / "empty.mp4").touch()
    with caplog.at_level(logging.WARNING):
        assert [clip.name for clip in find_clips(tmp_path, "train")] == ["id1#a.mp4", "id1#b.mp4"]
    assert [record.getMessage().split(" was skipped: ")[0] for record in caplog.records] == ["cut.mp4", "empty.mp4"]
    assert "empty.mp4 was skipped: empty.mp4 is empty" in caplog.messages


def test_links_in_circles_end(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "train" / "more").mkdir()
    (tmp_path / "train" / "more" / "again").symlink_to(tmp_path / "train")
    assert len(find_clips(tmp_path, "train")) == 2


def test_nothing_to_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_clips(tmp_path / "missing", "train")
    with pytest.raises(InputError, match="contains no readable clips"):
        find_clips(tmp_path, "train")


def test_pairs_are_read_by_name(tmp_path: Path) -> None:
    clips = find_clips(published(tmp_path), "train")
    (tmp_path / "pairs.csv").write_text("distance,source,driving\n0.1,id1#b.mp4,id1#a.mp4\n0.2,id1#a.mp4,id1#a.mp4\n")
    pairs = read_pairs_list(tmp_path / "pairs.csv", clips)
    assert [(source.name, driving.name) for source, driving in pairs] == [
        ("id1#b.mp4", "id1#a.mp4"),
        ("id1#a.mp4", "id1#a.mp4"),
    ]


def test_pairs_may_leave_out_folders(tmp_path: Path) -> None:
    clips = [Clip(Path("x"), "clips/a.mp4", "a", 3), Clip(Path("y"), "clips/b.mp4", "b", 3)]
    (tmp_path / "pairs.csv").write_text("source,driving\na.mp4,clips/b.mp4\n")
    assert read_pairs_list(tmp_path / "pairs.csv", clips) == ((clips[0], clips[1]),)
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs_list(tmp_path / "missing.csv", clips)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("source,driving\nid1#a.mp4,id1#bb.mp4\n", UsageError, r"'id1#bb.mp4', which does not exist \(did you mean"),
        ("source,driving\nid1#a.mp4\n", UsageError, "'', which does not exist"),
        ("from,to\na,b\n", InputError, "has no column source and no column driving"),
        ("source;driving\n", InputError, "has no rows"),
        ("", InputError, "is empty"),
    ],
)
def test_wrong_pairs_are_reported(content: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    clips = find_clips(published(tmp_path), "train")
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(error, match=message):
        read_pairs_list(tmp_path / "pairs.csv", clips)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder `shared` is not beside the repository")
def test_the_shared_faces() -> None:
    train, test = find_clips(SHARED, "train"), find_clips(SHARED, "test")
    assert len(train) + len(test) == 156
    assert {clip.identity for clip in train}.isdisjoint(clip.identity for clip in test)
    assert len({clip.identity for clip in test if not clip.still}) == 5
    assert sum(clip.frames for clip in [*train, *test] if not clip.still) == 9080
