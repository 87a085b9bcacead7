"""What was found is kept by the content of pictures: also by several processes, and whatever happens to the file."""

import logging
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fommctl.evaluate.detection_cache import FILE, DetectionCache, Result, picture_key


def picture(number: int) -> np.ndarray:
    return np.full((4, 6, 3), number % 256, np.uint8)


def answers(frames: list[np.ndarray]) -> list[Result]:
    """Nothing for black, else three numbers."""
    return [np.full((1, 3), frame[0, 0, 0], np.float32) if frame.any() else None for frame in frames]


class Asked:
    """Counts the pictures that are not known."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, frames: list[np.ndarray]) -> list[Result]:
        self.numbers += [int(frame[0, 0, 0]) for frame in frames]
        return answers(frames)


def ask(cache: DetectionCache, numbers: list[int], source: str = "detector 1") -> tuple[list[Result], list[int]]:
    asked = Asked()
    return cache.results(source, [picture(number) for number in numbers], asked), asked.numbers


def check(results: list[Result], numbers: list[int]) -> None:
    for result, number in zip(results, numbers, strict=True):
        if number == 0:
            assert result is None
        else:
            np.testing.assert_array_equal(result, np.full((1, 3), number))
            assert result.dtype == np.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("folder", [True, False])
def test_every_picture_is_asked_for_once(tmp_path: Path, folder: bool) -> None:
    cache = DetectionCache(tmp_path if folder else None)
    numbers = [3, 0, 3, 200, 0]
    results, asked = ask(cache, numbers)
    check(results, numbers)
    assert asked == [3, 0, 200]
    results, asked = ask(cache, [200, 5, 0])
    check(results, [200, 5, 0])
    assert asked == [5]
    # Another source, or another cache on the same folder.
    assert ask(cache, [3], "detector 2")[1] == [3]
    results, asked = ask(DetectionCache(tmp_path if folder else None), [5, 3, 0])
    check(results, [5, 3, 0])
    assert asked == ([] if folder else [5, 3, 0])


def test_keys_are_of_shape_and_pixels() -> None:
    one = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    assert picture_key(one) == picture_key(np.asfortranarray(one)) == picture_key(one[::-1][::-1].copy())
    other = one.copy()
    other[0, 0, 0] += 1
    assert len({picture_key(each) for each in (one, one.reshape(6, 4, 3), other)}) == 3


def test_memory_is_bounded() -> None:
    cache = DetectionCache(None, remembered=10)
    ask(cache, list(range(1, 31)))
    assert ask(cache, list(range(21, 31)))[1] == []
    assert ask(cache, [20])[1] == [20]


def test_the_file_is_bounded_and_keeps_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 10_000))
    monkeypatch.setattr("fommctl.evaluate.detection_cache.time.time", lambda: next(clock))
    cache = DetectionCache(tmp_path, most_bytes=40_000)
    for number in range(1, 200):
        cache.results("d", [picture(number)], lambda frames: [np.zeros((68, 2), np.float32)])
        assert (tmp_path / FILE).stat().st_size <= 60_000
    fresh = DetectionCache(tmp_path)
    assert ask(fresh, [199], "d")[1] == []
    assert ask(fresh, [1], "d")[1] == [1]


def _fill(folder: Path, first: int) -> None:
    cache = DetectionCache(folder)
    for number in range(first, first + 40, 2):
        ask(cache, [number, number + 1, 255])


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(tmp_path, first)) for first in (1, 41, 81, 121)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    numbers = [*range(1, 161), 255]
    results, asked = ask(DetectionCache(tmp_path), numbers)
    check(results, numbers)
    assert asked == []


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, though it is long enough to have a header" * 20)


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_no_database, _damaged, _empty])
def test_a_broken_file_is_written_anew(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    numbers = list(range(200))
    ask(DetectionCache(tmp_path), numbers)
    damage(tmp_path / FILE)
    results, asked = ask(DetectionCache(tmp_path), numbers)
    check(results, numbers)
    assert asked
    results, asked = ask(DetectionCache(tmp_path), numbers)
    check(results, numbers)
    assert asked == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_damaged_row_is_found_anew(tmp_path: Path) -> None:
    ask(DetectionCache(tmp_path), [1, 2, 3])
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update results set shape = '1,4' where picture = ?", (picture_key(picture(1)),))
        connection.execute("update results set shape = null where picture = ?", (picture_key(picture(2)),))
    connection.close()
    results, asked = ask(DetectionCache(tmp_path), [1, 2, 3])
    check(results, [1, 2, 3])
    assert asked == [1, 2]


def test_where_nothing_can_be_kept_it_works_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = DetectionCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        for numbers in ([1, 2], [2, 3], [4]):
            check(ask(cache, numbers)[0], numbers)
    (record,) = caplog.records
    assert record.message.startswith(f"what detectors find is not kept in {tmp_path / 'file'}: ")


def test_a_read_only_file_is_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(DetectionCache(tmp_path), [1, 2])
    connect = sqlite3.connect
    # Permissions do not bind the superuser, as whom tests may run.
    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: connect(f"file:{path}?mode=ro", uri=True, **more))
    cache = DetectionCache(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert ask(cache, [1, 2, 3])[1] == [3]
        assert ask(cache, [4])[1] == [4]
    assert ["readonly" in record.message for record in caplog.records] == [True]
    assert ask(DetectionCache(tmp_path), [2])[1] == []
