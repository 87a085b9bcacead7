"""Files are hashed once, and again after they were modified."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from fommctl.batch import keys as module
from fommctl.batch.keys import Hashes
from fommctl.errors import InputError


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files that a test has just written count as old."""
    monkeypatch.setattr(module, "SETTLED_NS", -(10**18))


def sha(content: str) -> str:
    return sha256(content.encode()).hexdigest()


def marked(memory: Path) -> None:
    """Change the stored values, so that whoever returns one has not read the file."""
    found = json.loads(memory.read_text())
    memory.write_text(json.dumps({path: [*entry[:4], "from memory"] for path, entry in found.items()}))


@pytest.mark.usefixtures("settled")
def test_what_nobody_wrote_to_is_not_read_again(tmp_path: Path) -> None:
    file, memory = tmp_path / "d.mp4", tmp_path / "hashes.json"
    file.write_text("take 1")
    first = Hashes(memory)
    assert first(file) == sha("take 1")
    assert not memory.exists()
    first.remember()
    marked(memory)
    assert Hashes(memory)(file) == "from memory"
    # Equal length and modification time: only the time of any change differs.
    status = file.stat()
    file.write_text("take 2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Hashes(memory)(file) == sha("take 2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.mp4", "hashes.json"]


@pytest.mark.usefixtures("settled")
def test_frames_of_a_folder_are_remembered_one_by_one(tmp_path: Path) -> None:
    frames, memory = tmp_path / "frames", tmp_path / "hashes.json"
    frames.mkdir()
    for number in range(3):
        (frames / f"{number}.png").write_text(str(number))
    first = Hashes(memory)
    whole = first(frames)
    assert whole == first(frames / "%d.png") == sha("".join(f"{n} {sha(str(n))}\n" for n in range(3)))
    first.remember()
    assert set(json.loads(memory.read_text())) == {str(frames / f"{number}.png") for number in range(3)}
    (frames / "1.png").write_text("x")
    assert Hashes(memory)(frames) == sha(f"0 {sha('0')}\n1 {sha('x')}\n2 {sha('2')}\n")


@pytest.mark.usefixtures("settled")
def test_files_of_other_jobs_stay_in_the_memory(tmp_path: Path) -> None:
    memory = tmp_path / "hashes.json"
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
        hashes = Hashes(memory)
        hashes(tmp_path / name)
        hashes.remember()
    assert [Path(path).name for path in json.loads(memory.read_text())] == ["a", "b", "c"]
    (tmp_path / "b").unlink()
    Hashes(memory).remember()
    assert [Path(path).name for path in json.loads(memory.read_text())] == ["a", "c"]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    """It could be modified again within one tick of the file system's clock."""
    (tmp_path / "d.mp4").write_text("take 1")
    hashes = Hashes(tmp_path / "hashes.json")
    hashes(tmp_path / "d.mp4")
    hashes.remember()
    assert not (tmp_path / "hashes.json").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"a": 1}', b'{"a": [1, 2]}', b"\xff\0", b"[" * 100_000])
def test_a_damaged_memory_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hashes.json").write_bytes(content)
    (tmp_path / "d.mp4").write_text("take 1")
    hashes = Hashes(tmp_path / "hashes.json")
    assert hashes(tmp_path / "d.mp4") == sha("take 1")
    hashes.remember()


@pytest.mark.usefixtures("settled")
def test_a_place_that_cannot_be_written_to_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "d.mp4").write_text("take 1")
    hashes = Hashes(tmp_path / "d.mp4" / "hashes.json")
    hashes(tmp_path / "d.mp4")
    hashes.remember()
    assert [path.name for path in tmp_path.iterdir()] == ["d.mp4"]


def test_several_at_once_are_what_they_are_one_by_one(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        path.write_text(path.name * 1000)
    hashes = Hashes()
    with hashes.ahead([*paths, tmp_path / "gone.mp4", *paths]):
        assert [hashes(path) for path in paths] == [sha(path.name * 1000) for path in paths]
        with pytest.raises(InputError, match=r"cannot read .*gone"):
            hashes(tmp_path / "gone.mp4")
    # An interrupt does not wait for a large file.
    with pytest.raises(KeyboardInterrupt), Hashes().ahead([*paths] * 3):
        raise KeyboardInterrupt
