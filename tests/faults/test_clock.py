"""A clock that jumps back and forth during a run, or is in 1970: nothing breaks, nothing is repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_scenarios import PRESET, TINY, Inputs, animate, scenarios, train
from faults import Undisturbed, run

NAMES = ("animate", "crop", "crop-workers", "preprocess", "train", "batch")
SAMPLE = ("crop",)
CLOCKS = ("back", "1970")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", NAMES if full else SAMPLE)
        metafunc.parametrize("clock", CLOCKS if full else CLOCKS[:1])


@pytest.mark.slow
def test_results_are_those_of_a_steady_clock(
    name: str, clock: str, inputs: Inputs, whole: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    scenario, out = scenarios(inputs)[name], tmp_path / "out"
    out.mkdir()
    scenario.prepare(out)
    for _ in range(2):
        # The second run finds the results of the first, whatever the dates of its files and records.
        result = run(*scenario.words(out), site=scenario.path, FAULT_CLOCK=clock)
        assert result.code == 0, result.stderr
        scenario.check_complete(out, whole(name).out)


@pytest.mark.full
def test_training_continues_from_the_last_step_not_from_the_last_date(inputs: Inputs, tmp_path: Path) -> None:
    """Checkpoints are dated in reverse; curves are in the order of steps; no speed is negative."""
    out = tmp_path / "out"
    assert run(*train(inputs, out), "--max-steps", "3", FAULT_CLOCK="back").code == 0
    for age, path in enumerate(sorted((out / "checkpoints").iterdir())):
        os.utime(path, (10**9 - age, 10**9 - age))
    result = run(*train(inputs, out), "--json", FAULT_CLOCK="1970")
    assert result.code == 0, result.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert all(line["samples_per_s"] > 0 and 0 <= line["waiting"] <= 1 for line in lines)


@pytest.mark.full
@pytest.mark.parametrize("clock", CLOCKS)
def test_speeds_and_models(clock: str, isolated: Path, inputs: Inputs, tmp_path: Path) -> None:
    done = run(*animate(inputs, tmp_path / "out.mp4"), "--json", FAULT_CLOCK=clock)
    assert done.code == 0, done.stderr
    assert all(speed > 0 for speed in done.json()["frames_per_second"].values())
    words = ("models", "import", TINY[1], "--preset", PRESET, "--name", "mine", "--overwrite", "--json")
    for _ in range(2):
        assert run(*words, FAULT_CLOCK=clock).code == 0
    assert os.listdir(isolated / "models") == ["mine.safetensors"]
