"""Robot data sets: miniatures of the published layouts, and damaged ones."""

import json
import pickle
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import robot_layouts
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_layouts import CAMERAS, bair_record, checksum, example, shade, trajectory

from fommctl.api import ClipRecord, InputError, MissingError, testing
from fommctl.host import Host
from fommctl.media.reader import Reader
from fommctl_robots.bair import Bair
from fommctl_robots.lerobot import LeRobot
from fommctl_robots.tfrecord import byte_features, masked_crc32c, read_record, record_starts

SHARED = Path(__file__).parents[3] / "shared/robots"


def test_the_checksum_is_that_of_tensorflow() -> None:
    data = np.random.default_rng(0).bytes(1000)
    assert masked_crc32c(data) == checksum(data)


def test_without_its_package_the_checksum_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(MissingError, match="google-crc32c"):
        masked_crc32c(b"")


def test_examples_are_read_field_by_field() -> None:
    features = {"a": b"one", "numbers": [1.0, 2.0], "b": bytes(300), "": b"unnamed"}
    # An unknown number (field 7, wire type 0) and an unknown 32-bit value (field 9, wire type 5) are skipped.
    extra = bytes([7 << 3, 0x96, 0x01, 9 << 3 | 5, 1, 2, 3, 4])
    found = byte_features(extra + example(features))
    assert {name: bytes(value) for name, value in found.items()} == {"a": b"one", "b": bytes(300), "": b"unnamed"}


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 200), at=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_broken_example_is_a_value_error_or_is_read(cut: int, at: int, byte: int) -> None:
    message = bytearray(example({"0/image_aux1/encoded": bytes(192), "0/action": [1.0]}))
    message[at] = byte
    with suppress(ValueError):
        byte_features(bytes(message[: len(message) - cut]))


def frames(clip: ClipRecord) -> np.ndarray:
    assert clip.frames is not None
    return np.stack(list(clip.frames()))


def test_bair_as_published(tmp_path: Path, host: Host) -> None:
    root = robot_layouts.bair(tmp_path / "softmotion30_44k")
    testing.check_dataset(host.datasets["bair"], root)
    clips = list(Bair().clips(root))
    assert {clip.name for clip in clips} == {"image_aux1"}
    assert [(clip.identity, clip.split) for clip in clips] == [
        ("test-traj_0_to_0-00000", "test"),
        ("train-traj_0_to_1-00000", "train"),
        ("train-traj_0_to_1-00001", "train"),
        ("train-traj_2_to_3-00000", "train"),
        ("train-traj_2_to_3-00001", "train"),
    ]
    for clip, seed in zip(clips, (4, 0, 1, 2, 3), strict=True):
        np.testing.assert_array_equal(frames(clip), trajectory(seed))


def test_a_trajectory_goes_to_another_process(tmp_path: Path) -> None:
    clip = list(Bair().clips(robot_layouts.bair(tmp_path)))[2]
    sent = pickle.loads(pickle.dumps(clip))
    np.testing.assert_array_equal(frames(sent), trajectory(1))


def test_bair_as_folders_of_frames(tmp_path: Path, host: Host) -> None:
    root = robot_layouts.bair_folders(tmp_path / "processed_data")
    testing.check_dataset(host.datasets["bair"], root)
    clips = list(Bair().clips(root))
    assert {clip.name for clip in clips} == {"image_aux1"}
    assert [(clip.identity, clip.split) for clip in clips] == [
        ("test-traj_0_to_0-1", "test"),
        ("train-traj_0_to_1-1", "train"),
        ("train-traj_0_to_1-2", "train"),
    ]
    # 10.png follows 9.png.
    read = np.stack([frame.pixels for frame in Reader(clips[2].path)])
    np.testing.assert_array_equal(read, trajectory(1, length=11))


def test_the_records_before_a_cut_are_good(tmp_path: Path) -> None:
    path = robot_layouts.bair(tmp_path) / "train/traj_0_to_1.tfrecords"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    clips = [clip for clip in Bair().clips(tmp_path) if "traj_0_to_1" in clip.identity]
    np.testing.assert_array_equal(frames(clips[0]), trajectory(0))
    with pytest.raises(InputError, match=r"traj_0_to_1\.tfrecords is truncated within the record at byte"):
        frames(clips[1])
    assert len(clips) == 2
    path.write_bytes(whole[: len(whole) // 2 + 5])
    clips = [clip for clip in Bair().clips(tmp_path) if "traj_0_to_1" in clip.identity]
    with pytest.raises(InputError, match="no record begins at byte"):
        frames(clips[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no record begins at byte 0"),
        (b"<html>404 Not Found</html>", "no record begins at byte 0"),
        ("checksum", "the checksum of the record at byte 0 is wrong"),
        ("text", "is not a tf.train.Example"),
        ("other", "has no pictures image_aux1"),
        ("jpeg", "a picture of 100 bytes is not a raw square"),
        ("huge", "is too long, 1099511627776 bytes"),
    ],
)
def test_a_bad_file_is_one_clip_that_says_why(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "train/bad.tfrecords"
    records = {
        "text": b"\x0f not a message",
        "other": example({"video": b"1"}),
        "jpeg": example({"0/image_aux1/encoded": bytes(100)}),
    }
    robot_layouts.write_records(path, [records.get(str(content), bair_record(trajectory(0)))])
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "checksum":
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
    elif content == "huge":
        length = (1 << 40).to_bytes(8, "little")
        path.write_bytes(length + checksum(length).to_bytes(4, "little"))
    robot_layouts.write_records(tmp_path / "train/good.tfrecords", [bair_record(trajectory(7))])
    bad, good = Bair().clips(tmp_path)
    with pytest.raises(InputError, match=message):
        frames(bad)
    np.testing.assert_array_equal(frames(good), trajectory(7))


def test_a_file_that_went_away_is_an_input_error(tmp_path: Path) -> None:
    assert list(record_starts(tmp_path / "gone")) == [0]
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_record(tmp_path / "gone", 0)


@pytest.mark.parametrize("make", [robot_layouts.lerobot_2, robot_layouts.lerobot_3])
def test_lerobot(tmp_path: Path, host: Host, make) -> None:
    root = make(tmp_path / "raw")
    testing.check_dataset(host.datasets["lerobot"], root)
    clips = list(LeRobot().clips(root))
    assert [(clip.identity, clip.name) for clip in clips] == [
        (f"episode_{episode:06d}", camera) for episode in range(3) for camera in CAMERAS
    ]
    assert {clip.split for clip in clips} == {None}
    # Exactly the frames of the episode, and none of its neighbours'.
    for clip, (episode, camera) in zip(clips, [(e, c) for e in range(3) for c in CAMERAS], strict=True):
        start, end = (None if time is None else Fraction(time) for time in (clip.start, clip.end))
        shades = [frame.pixels.mean() for frame in Reader(clip.path, start=start, end=end)]
        expected = [shade(episode, camera, index) for index in range((4, 5, 6)[episode])]
        np.testing.assert_allclose(shades, expected, atol=1.5)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_with_pictures_in_parquet(tmp_path: Path, host: Host, version: str) -> None:
    root = robot_layouts.lerobot_pictures(tmp_path / "raw", version=version)
    testing.check_dataset(host.datasets["lerobot"], root, limit=6)
    clips = list(LeRobot().clips(root))
    assert {clip.rate for clip in clips} == {20}
    for clip, (episode, camera) in zip(clips, [(e, c) for e in range(3) for c in CAMERAS], strict=True):
        assert (clip.identity, clip.name) == (f"episode_{episode:06d}", camera)
        pictures = frames(pickle.loads(pickle.dumps(clip)))
        assert pictures.shape == ((4, 5, 6)[episode], 48, 64, 3)
        expected = [shade(episode, camera, index) for index in range(len(pictures))]
        np.testing.assert_allclose(pictures.mean((1, 2, 3)), expected, atol=1)


def test_lerobot_pictures_that_are_damaged(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    root = robot_layouts.lerobot_pictures(tmp_path / "raw", (2, 2))
    path = root / "data/chunk-000/file-000.parquet"
    clip = list(LeRobot().clips(root))[2]
    good = parquet.read_table(path).to_pylist()
    for cell, message in (
        ({"bytes": b"no picture", "path": None}, "episode 1, observation.images.side is damaged"),
        ({"bytes": None, "path": "../secret.png"}, "a frame is not stored as a picture"),
    ):
        parquet.write_table(pyarrow.Table.from_pylist([{**row, CAMERAS[0]: cell} for row in good]), path)
        with pytest.raises(InputError, match=message):
            frames(clip)
    parquet.write_table(pyarrow.Table.from_pylist(good[:2]), path)
    with pytest.raises(InputError, match=r"file-000\.parquet has no frames of episode 1"):
        frames(clip)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is damaged"):
        frames(clip)
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        frames(clip)


@pytest.mark.parametrize("version", ["v2.0", "2.1", "v3.0", "v3.1"])
def test_lerobot_versions(tmp_path: Path, version: str) -> None:
    make = robot_layouts.lerobot_3 if "3" in version else robot_layouts.lerobot_2
    assert len(list(LeRobot().clips(make(tmp_path / "raw", (2,), version=version)))) == 2


def test_lerobot_splits_and_missing_videos(tmp_path: Path) -> None:
    root = robot_layouts.lerobot_2(tmp_path / "raw", splits={"train": "0:2", "val": "2:3"})
    gone = root / f"videos/chunk-000/{CAMERAS[0]}/episode_000001.mp4"
    gone.unlink()
    clips = list(LeRobot().clips(root))
    assert [clip.split for clip in clips] == ["train"] * 4 + ["test"] * 2
    assert [clip.path for clip in clips if not clip.path.exists()] == [gone]


def test_lerobot_chunks(tmp_path: Path) -> None:
    root = robot_layouts.lerobot_2(tmp_path / "raw", (1, 1, 1), chunks_size=2)
    paths = [str(clip.path.relative_to(root)) for clip in LeRobot().clips(root)]
    assert paths[4] == f"videos/chunk-001/{CAMERAS[0]}/episode_000002.mp4"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6'; versions 2 and 3 are supported"),
        ({"codebase_version": None}, "codebase_version is 'None'"),
        ({"features": []}, "has no features"),
        ({"features": {"action": {"dtype": "float32"}}}, "lists no cameras"),
        ({"features": {"eye": {"dtype": "image"}}, "data_path": "/dev/zero"}, "data_path leads to '/dev/zero'"),
        ({"features": {"../../etc": {"dtype": "video"}}}, "not a file of the data set"),
        ({"video_path": "/etc/{video_key}"}, "not a file of the data set"),
        ({"video_path": "../{video_key}/x.mp4"}, "not a file of the data set"),
        ({"video_path": "{secret}.mp4"}, r"unknown field \{secret\}"),
        ({"video_path": "{video_key.__class__}.mp4"}, "not a file of the data set"),
        ({"fps": 0}, "fps is 0, not a positive number"),
        ({"chunks_size": "many"}, "chunks_size is 'many'"),
        ({"splits": {"test": "all"}}, "the split test is 'all', not FIRST:END"),
        ({"splits": ["train"]}, "splits is not an object"),
    ],
)
def test_lerobot_info_that_cannot_be(tmp_path: Path, info: dict, message: str) -> None:
    root = robot_layouts.lerobot_2(tmp_path / "raw", (1,))
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **info}))
    with pytest.raises(InputError, match=message):
        list(LeRobot().clips(root))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("info.json", b"{", "info.json is damaged"),
        ("info.json", b"[]", "it is not a JSON object"),
        ("info.json", b"\xff\xfe\x00", "info.json is damaged"),
        ("info.json", b"[" * 100_000, "info.json is damaged"),
        ("episodes.jsonl", b"", "has no episodes"),
        ("episodes.jsonl", b'{"episode_index": 0}\n{"epi', "line 2 is damaged"),
        ("episodes.jsonl", b'{"length": 3}', "line 1: episode_index is None, not a whole number"),
        ("episodes.jsonl", b'{"episode_index": -1}', "episode_index is -1"),
        ("episodes.jsonl", b'{"episode_index": 4}\n{"episode_index": 4}', "episode 4 is listed twice"),
        ("episodes.jsonl", b'{"episode_index": \xff}', "is damaged"),
    ],
)
def test_lerobot_2_descriptions_that_are_damaged(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    root = robot_layouts.lerobot_2(tmp_path / "raw", (1,))
    (root / "meta" / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(LeRobot().clips(root))


def test_lerobot_3_descriptions_that_are_damaged(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    root = robot_layouts.lerobot_3(tmp_path / "raw", (2, 2))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    whole = path.read_bytes()
    for broken in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1" + bytes(30) + b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"file-000\.parquet is damaged"):
            list(LeRobot().clips(root))
    path.write_bytes(whole)
    rows = parquet.read_table(path).to_pylist()
    key = f"videos/{CAMERAS[1]}"
    for column, value, message in (
        (f"{key}/to_timestamp", 0.0, "episode 0 ends at 0.0 s but starts at 0.0 s"),
        (f"{key}/from_timestamp", float("nan"), "is nan, not a time"),
        (f"{key}/file_index", None, "is None, not a whole number"),
    ):
        changed = [{**row, column: value} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(changed), path)
        with pytest.raises(InputError, match=message):
            list(LeRobot().clips(root))
    parquet.write_table(parquet.read_table(path).drop_columns([f"{key}/file_index"]), path)
    with pytest.raises(InputError, match=f"has no column {key}/file_index"):
        list(LeRobot().clips(root))
    path.unlink()
    with pytest.raises(InputError, match=r"contains no \.parquet files"):
        list(LeRobot().clips(root))


def test_lerobot_3_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = robot_layouts.lerobot_3(tmp_path / "raw", (2,))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingError, match="need the package pyarrow") as error:
        list(LeRobot().clips(root))
    assert error.value.hint == "pip install 'fommctl[robots]'"


@pytest.mark.parametrize("name", ["bair", "lerobot", "robots"])
def test_another_folder_is_refused_with_a_hint(name: str, host: Host, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(InputError) as error:
        list(host.datasets[name].build().clips(tmp_path))
    assert str(tmp_path) in error.value.message
    assert error.value.hint


@pytest.mark.skipif(not SHARED.is_dir(), reason="the robots of ../shared are absent")
def test_gifs_of_robots(host: Host) -> None:
    testing.check_dataset(host.datasets["robots"], SHARED)
    clips = list(host.datasets["robots"].build().clips(SHARED))
    assert len(clips) == len({clip.identity for clip in clips}) == 5
    assert sum(1 for _ in Reader(clips[0].path)) > 20
