"""Locks between processes whose files come and go."""

import os
from pathlib import Path

import pytest

from fommctl.models.locks import FileLock


def test_one_holder_and_no_file_afterwards(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    assert not second.acquire(0.05)
    second.release()
    assert (tmp_path / "lock").exists()
    first.release()
    assert os.listdir(tmp_path) == []
    assert second.acquire()
    second.release()
    first.release()


def test_a_file_that_was_removed_or_replaced_guards_nothing(tmp_path: Path) -> None:
    first, second, third = (FileLock(tmp_path / "lock") for _ in range(3))
    assert first.acquire()
    (tmp_path / "lock").unlink()
    assert second.acquire()
    assert not third.acquire()
    second.release()


def test_a_forked_child_does_not_hold_what_its_parent_has_locked(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    ask, answer = os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()
        os.read(ask, 1)
        os._exit(0)
    try:
        assert not FileLock(tmp_path / "lock").acquire(0.1)
        lock.release()
        again = FileLock(tmp_path / "lock")
        assert again.acquire()
        again.release()
    finally:
        os.write(answer, b"x")
        assert os.waitpid(child, 0)[1] == 0
        os.close(ask)
        os.close(answer)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "no" / "lock").acquire()
