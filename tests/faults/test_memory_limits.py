"""Too little memory gives a message and nothing half-written; a video ten times as long needs no more memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Result
from crop_shots import blob_clip
from fault_scenarios import Inputs, animate, crop, scenarios
from faults import Scenario, Undisturbed, run
from media_factory import moving_square, write_clip
from PIL import Image

LIMITS = {
    "pictures": (650, 750, 800, 850, 900, 950, 1000, 1100, 1300),
    "crop": (150, 200, 250, 300, 400),
    "preprocess": (150, 200, 250, 300, 400),
    "train": (700, 800, 900, 1000, 1200),
}
"""Address space in MiB, from too little for the libraries to enough."""
SAMPLE = {"crop": (250,)}
ENDED_BY_A_LIBRARY = ("OpenBLAS error", "std::bad_alloc", "OpenMP", "OMP: ")
"""Errors by which libraries end the process before fommctl can report anything."""
MEGABYTE = 2**20
MORE_FOR_TEN_TIMES_THE_FRAMES = 16


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "limited" in metafunc.fixturenames:
        metafunc.parametrize("limited", LIMITS if full else SAMPLE)


def limited_run(scenario: Scenario, out: Path, megabytes: int) -> tuple[int, str]:
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, 2 * (megabytes * MEGABYTE,))  # noqa: E731
    # Memory pools of threads would count although they are not used.
    result = run(*scenario.words(out), site=scenario.path, limit=limit, MALLOC_ARENA_MAX="1")
    return result.code, result.stderr


def assert_told(code: int, stderr: str) -> None:
    """Assert that the error is reported, unless a library ended the process."""
    assert "Traceback" not in stderr
    assert "bug in fommctl" not in stderr, stderr
    if code > 0 and not any(text in stderr for text in ENDED_BY_A_LIBRARY):
        assert "memory" in stderr, stderr
        assert "hint: " in stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_a_lack_of_memory_is_reported_and_leaves_nothing_half_written(
    limited: str,
    full: bool,
    inputs: Inputs,
    whole: Callable[[str], Undisturbed],
    run_beside: Callable[..., Result],
    tmp_path: Path,
) -> None:
    scenario = scenarios(inputs)[limited]
    steady, codes = whole(limited).out, []
    for megabytes in (LIMITS if full else SAMPLE)[limited]:
        out = tmp_path / str(megabytes)
        out.mkdir()
        scenario.prepare(out)
        code, stderr = limited_run(scenario, out, megabytes)
        print(f"{limited}, {megabytes} MiB: {code}")
        assert_told(code, stderr)
        scenario.check_killed(out, steady)
        if code == 0:
            scenario.check_complete(out, steady)
        codes.append(code)
    if full:
        assert 0 in codes
        assert any(codes)
    assert run_beside(*scenario.words(out), path=scenario.path).code == 0
    scenario.check_complete(out, steady)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_a_picture_that_does_not_fit_is_not_called_damaged(inputs: Inputs, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5000, 5000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.bmp")
    (tmp_path / "out").mkdir()
    own = replace(inputs, portrait=tmp_path / "big.bmp")
    for megabytes in (850, 900, 950):
        limit = lambda room=megabytes: resource.setrlimit(resource.RLIMIT_AS, 2 * (room * MEGABYTE,))  # noqa: E731
        result = run(*animate(own, tmp_path / "out" / "out.mp4"), limit=limit, MALLOC_ARENA_MAX="1")
        assert_told(result.code, result.stderr)
        assert "damaged" not in result.stderr
        assert os.listdir(tmp_path / "out") == ["out.mp4"] * (result.code == 0)


@pytest.mark.full
@pytest.mark.parametrize("long", ["animate", "crop"])
@pytest.mark.skipif(sys.platform != "linux", reason="needs the peak that Linux tells")
def test_memory_does_not_grow_with_the_video(long: str, inputs: Inputs, tmp_path: Path) -> None:
    peaks = []
    for frames in (200, 2000):
        folder = tmp_path / str(frames)
        folder.mkdir()
        if long == "animate":
            pictures = [moving_square(index, 64, 64) for index in range(24)]
            clip = folder / "clip.mp4"
            write_clip(clip, width=64, height=64, frames=frames, draw=lambda index, shown=pictures: shown[index % 24])
            words = animate(replace(inputs, clip=clip), folder / "out.mp4")
        else:
            (folder / "raw").mkdir()
            blob_clip(folder / "raw" / "0.mp4", frames=frames)
            words = crop(replace(inputs, raw=folder / "raw"), folder / "out")
        faults = {"FAULT_FOLDER": str(folder), "FAULT_TALLY": str(folder / "tally")}
        done = run(*words, site=inputs.site, **faults)
        assert done.code == 0, done.stderr
        peaks.append(int((folder / "tally").read_text().split()[1]) / 1024)
    print(f"{long}: {peaks} MiB")
    assert peaks[1] - peaks[0] < MORE_FOR_TEN_TIMES_THE_FRAMES
