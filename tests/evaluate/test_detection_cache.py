"""Results are stored by the content of pictures, also by several processes; in memory without a usable file."""

import logging
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fommctl.evaluate.detection_cache import FILE, DetectionCache, Result, picture_key


def picture(number: int) -> np.ndarray:
    return np.full((4, 6, 3), number % 256, np.uint8)


def answers(frames: list[np.ndarray]) -> list[Result]:
    """Return nothing for black pictures, else three values."""
    return [np.full((1, 3), frame[0, 0, 0], np.float32) if frame.any() else None for frame in frames]


class Asked:
    """Counts the pictures that are not in the cache."""

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


def test_the_file_is_bounded_and_keeps_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 10_000))
    monkeypatch.setattr("fommctl.evaluate.detection_cache.time.time", lambda: next(clock))
    monkeypatch.setattr("fommctl.evaluate.detection_cache.MOST_BYTES", 40_000)
    for number in range(1, 200):
        cache = DetectionCache(tmp_path)
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


@pytest.mark.parametrize("damage", ["no database", "folder", "read-only"])
def test_without_a_usable_file_results_are_kept_in_memory(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FILE
    if damage == "no database":
        path.write_bytes(b"this is no database, though it is long enough to have a header" * 20)
    elif damage == "folder":
        path.mkdir()
    else:
        ask(DetectionCache(tmp_path), [1])
        connect = sqlite3.connect
        # Permissions do not apply to root, as which tests may run.
        monkeypatch.setattr(
            sqlite3,
            "connect",
            lambda name, **more: connect(name if name == ":memory:" else f"file:{name}?mode=ro", uri=True, **more),
        )
    before = path.read_bytes() if path.is_file() else None
    cache = DetectionCache(tmp_path)
    with caplog.at_level(logging.WARNING):
        for numbers in ([1, 2], [2, 3], [3, 4]):
            results, asked = ask(cache, numbers)
            check(results, numbers)
            assert 2 not in asked or numbers == [1, 2]
    (record,) = caplog.records
    assert record.message.startswith(f"detections are not cached in {path}: ")
    assert (path.read_bytes() if path.is_file() else None) == before
