"""Files are complete or unchanged, and nothing written by others is replaced or deleted."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from fommctl.errors import OutputError, UsageError
from fommctl.files import (
    FileFingerprint,
    HeldFolder,
    atomic_write,
    create_temporary,
    exclusive_folder,
    file_sha256,
    is_running,
    locked,
    publish,
    read_regular,
    remove_stale_files,
    require_own_folder,
    safe_file_name,
    temporary_path,
    write_text,
)
from fommctl.journal import Journal


class Line(BaseModel):
    """A record without fields."""


DEAD = 999_999_999
"""A process id that no process has."""


def left_by_a_killed_process(target: Path) -> Path:
    path = temporary_path(target)
    return path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{DEAD}-"))


def test_a_write_is_whole_or_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "made" / "a.json"
    write_text(target, "caf\udce9 é")
    assert target.read_bytes() == b"caf\xe9 \xc3\xa9"

    def interrupted() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"caf\xe9 \xc3\xa9"
    assert os.listdir(target.parent) == ["a.json"]


def test_a_write_keeps_the_mode_of_the_file(tmp_path: Path) -> None:
    target = tmp_path / "private.txt"
    target.write_text("old")
    target.chmod(0o600)
    write_text(target, "new")
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("new", 0o600)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_temporary_names_are_distinct_and_belong_to_one_target(tmp_path: Path) -> None:
    """Two outputs whose names share 40 characters neither share a temporary file nor remove each other's."""
    one, two = (tmp_path / f"{'x' * 60}{end}.mp4" for end in "ab")
    assert len({temporary_path(one), temporary_path(one), temporary_path(two)}) == 3
    left = [left_by_a_killed_process(target) for target in (one, two)]
    for path in left:
        path.write_text("half")
    remove_stale_files(tmp_path, one)
    assert sorted(tmp_path.iterdir()) == [left[1]]


@pytest.mark.parametrize("name", ["é" * 120 + ".mp4", os.fsdecode(b"caf\xe9" * 40 + b".mp4"), "a" * 251 + ".mp4", ".x"])
def test_every_name_has_a_temporary_one(tmp_path: Path, name: str) -> None:
    path = create_temporary(tmp_path / name)
    assert path.exists()
    assert path.name.startswith(".")
    remove_stale_files(tmp_path)
    assert path.exists(), "its process runs"


def test_a_link_under_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    link = tmp_path / ".guessed.tmp"
    link.symlink_to(precious)
    monkeypatch.setattr("fommctl.files.temporary_path", lambda target: link)
    with pytest.raises(OutputError):
        write_text(tmp_path / "a.txt", "new")
    assert precious.read_text() == "precious"


def test_only_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / ".notes.tmp", tmp_path / ".a.mp4.123.tmp", create_temporary(tmp_path / "b.mp4")]
    elsewhere = left_by_a_killed_process(tmp_path / "c.mp4")
    kept.append(elsewhere.with_name(re.sub(r"fommctl-[0-9a-f]{8}", "fommctl-00000000", elsewhere.name)))
    for path in kept:
        path.write_text("of somebody else")
    folder = left_by_a_killed_process(tmp_path / "frames")
    folder.mkdir()
    (folder / "1.png").write_text("half")
    left_by_a_killed_process(tmp_path / "a.mp4").write_text("half")
    remove_stale_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    remove_stale_files(tmp_path / "missing")


def test_a_result_never_replaces_what_appeared_meanwhile(tmp_path: Path) -> None:
    finished, target = tmp_path / ".new", tmp_path / "a.mp4"
    finished.write_text("ours")
    target.write_text("theirs")
    with pytest.raises(UsageError, match="written by another program in the meantime"):
        publish(finished, target, overwrite=False)
    assert (finished.read_text(), target.read_text()) == ("ours", "theirs")
    publish(finished, target, overwrite=True)
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert target.read_text() == "ours"


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with exclusive_folder(folder, ".fommctl-test"):
        with pytest.raises(UsageError, match="another run is writing"), exclusive_folder(folder, ".fommctl-test"):
            pass
        with locked(folder / ".fommctl-test", patience=0.05) as free:
            assert not free
    with exclusive_folder(folder, ".fommctl-test"):
        pass
    assert os.listdir(folder) == [".fommctl-test"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fommctl.files import exclusive_folder\n"
        "with exclusive_folder(Path(sys.argv[1]), '.lock'): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with exclusive_folder(tmp_path, ".lock"):
        pass


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    def check(folder: Path, **more: object) -> None:
        require_own_folder(folder, ".fommctl-test", contents="test", **more)  # type: ignore[arg-type]

    check(tmp_path / "missing")
    check(tmp_path)
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(UsageError, match="not empty and contains no test"):
        check(tmp_path)
    check(tmp_path, made_earlier=lambda folder: (folder / "photo.jpg").exists())
    with pytest.raises(OutputError, match="not a folder"):
        check(tmp_path / "photo.jpg")
    with exclusive_folder(tmp_path, ".fommctl-test"):
        check(tmp_path)


def test_fingerprints_show_that_a_file_was_written_to(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    other.write_text("three")
    before = FileFingerprint.of(path)
    times = path.stat()
    assert FileFingerprint(*before.to_json()) == before  # type: ignore[arg-type]
    assert FileFingerprint.of(path, other).size == 8
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not FileFingerprint.of(path).agrees_with(before), "no program can set ctime"
    assert FileFingerprint.of(path).agrees_with(before.content)
    os.utime(path, ns=(1, 1))
    assert not FileFingerprint.of(path).agrees_with(before.content)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Anna Ström 3.mp4", "Anna Ström 3.mp4"),
        ("a/b\\c:d", "a_b_c_d"),
        ("x\x1b[31m\n\u202ey", "x_[31m__y"),
        ("..", "_"),
        (" .a. ", "a"),
        ("caf\udce9", "caf_"),
        ("é" * 200, "é" * 127),
        ("a#b", "a_b"),
    ],
)
def test_safe_file_names(text: str, name: str) -> None:
    assert safe_file_name(text, forbidden="#") == name


def test_a_folder_of_ours_that_is_moved_meanwhile_is_not_made_again(tmp_path: Path):
    folder = tmp_path / "out"
    with exclusive_folder(folder, ".marker"):
        write_text(folder / "one", "1")
        folder.rename(tmp_path / "moved")
        with pytest.raises(OutputError, match=f"the output folder was moved or removed in the meantime: {folder}"):
            write_text(folder / "two", "2")
        with pytest.raises(OutputError, match="moved"):
            Journal(folder / "lines", Line).append(Line())
        assert not folder.exists()
        # Another folder of that name is foreign too.
        folder.mkdir()
        with pytest.raises(OutputError, match="moved"):
            write_text(folder / "two", "2")
    write_text(folder / "two", "2")
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == [".marker", "one"]


def test_files_in_a_folder_that_was_moved_are_removed(tmp_path: Path):
    (tmp_path / "out" / "folder").mkdir(parents=True)
    (tmp_path / "out" / "folder" / "x").touch()
    (tmp_path / "out" / "file").touch()
    held = HeldFolder(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    for name in ("folder", "file", "missing"):
        held.remove(name)
    held.close()
    assert list((tmp_path / "moved").iterdir()) == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_regular, file_sha256):
        with pytest.raises(OSError, match="it is a pipe or a device"):
            read(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    assert read_regular(tmp_path / "file") == b"x"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes tell their state in /proc")
def test_a_zombie_is_not_running():
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(ended.pid)
    ended.stdin.close()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(ended.pid)
    ended.wait()
    assert not is_running(ended.pid)
