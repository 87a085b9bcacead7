"""Folders: writable or not (also for a superuser), on a network disk, with leftovers."""

import os
import time
from pathlib import Path

from fommctl.stages.doctor import disk

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /home rw - nfs4 files.example.org:/export/home rw,addr=10.0.0.1
31 22 0:27 / /home/local rw - xfs /dev/sdb1 rw
32 22 0:28 / /mnt/my\\040disk rw shared:4 - fuse.sshfs host:/x rw
"""


def test_file_systems(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    expected = {
        "/": "ext4",
        "/usr/lib": "ext4",
        "/home": "nfs4",
        "/home/x/models": "nfs4",
        "/homes": "ext4",
        "/home/local/x": "xfs",
        "/mnt/my disk/x": "fuse.sshfs",
    }
    assert {place: disk.file_system(place, table) for place in expected} == expected
    assert disk.file_system("/", tmp_path / "none") == ""


def test_a_folder_below_a_file_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path / "file" / "home"))
    (finding,) = disk.check_home()
    assert finding.level == "problem"
    assert finding.value == f"{tmp_path / 'file' / 'home'} cannot be written to: {tmp_path / 'file'} is a file"
    assert finding.advice == "Set FOMMCTL_HOME to a folder that you can write to."


def test_a_folder_that_even_a_superuser_cannot_write_to():
    assert disk.write_fault(Path("/proc/self")) is not None


def test_nothing_is_left_in_a_folder_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path / "home"))
    (new,) = disk.check_home()
    assert new.level in ("ok", "note")
    assert f"{tmp_path / 'home'}: not there yet" in new.value
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "model").write_bytes(bytes(2048))
    (there,) = disk.check_home()
    assert ": holds 2 kB, " in there.value
    assert os.listdir(tmp_path / "home") == ["model"]


def test_leftovers(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path))
    folder = tmp_path / "models"
    folder.mkdir()
    yesterday = time.time() - 2 * 24 * 3600
    names = [".a.pth.tar.12.tmp", ".b.pth.tar.part", ".b.pth.tar.part.json", "c.lock", "keep.safetensors"]
    for name in names:
        (folder / name).write_bytes(bytes(1024))
        os.utime(folder / name, (yesterday, yesterday))
    (folder / ".young.1.tmp").write_bytes(bytes(10))
    found = [finding for finding in disk.check_home() if finding.level == "note" and finding.name != "FOMMCTL_HOME"]
    assert [(finding.name, finding.value) for finding in found] == [
        ("leftovers", "1 half-written, 1 kB, older than a day"),
        ("leftovers", "2 of downloads, 2 kB, older than a day"),
        ("locks", "1 older than a day; they hold nobody up"),
    ]
    assert found[0].advice == f"rm {folder / '.a.pth.tar.12.tmp'}"
    assert found[2].advice == f"While no fommctl runs they may go: rm {folder / 'c.lock'}"


def test_a_full_disk_and_a_network_disk_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_free", lambda folder: 10 * 2**20)
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path))
    (full,) = disk.check_home()
    assert (full.level, full.advice.split(".")[0]) == ("note", "Free some space")
    monkeypatch.setattr(disk, "_free", lambda folder: 10 * 2**40)
    monkeypatch.setattr(disk, "file_system", lambda folder: "nfs4")
    (remote,) = disk.check_home()
    assert remote.level == "note"
    assert remote.value.endswith("10 TB free, on a network disk (nfs4)")


def test_little_shared_memory_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"total": 64 * 2**20}))
    (finding,) = disk.check_shared_memory(tmp_path)
    assert (finding.level, finding.value) == ("note", "64 MB")
    assert "--shm-size=8g" in finding.advice
    assert list(disk.check_shared_memory(tmp_path / "none")) == []


def test_no_temporary_folder(monkeypatch):
    def none():
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    (finding,) = disk.check_temporary()
    assert (finding.level, finding.advice) == ("problem", "Set TMPDIR to a folder that you can write to.")


def test_the_current_folder_is_gone(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    (finding,) = disk.check_here()
    assert (finding.level, finding.value) == ("note", "it is gone: No such file or directory")
