"""SIGKILL at random moments: files with final names are complete, no process survives, and the next run finishes the
work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
from fault_scenarios import Inputs, scenarios
from faults import Undisturbed, moment, run_killed

NAMES = ("animate", "pictures", "crop", "crop-workers", "preprocess", "preprocess-workers", "train", "train-workers")
NAMES = (*NAMES, "batch", "batch-workers", "import")
SAMPLE = ("animate", "crop", "preprocess")
"""Sample in `make test`; `train` and `batch` have their own tests with kills."""
MOMENTS, SAMPLED_MOMENTS = 20, 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        metafunc.parametrize("name", NAMES if full else SAMPLE)
        metafunc.parametrize("number", range(MOMENTS if full else SAMPLED_MOMENTS))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_and_run_again(
    name: str,
    number: int,
    full: bool,
    inputs: Inputs,
    whole: Callable[[str], Undisturbed],
    run_beside: Callable[..., command_line.Result],
    tmp_path: Path,
) -> None:
    scenario, steady, out = scenarios(inputs)[name], whole(name), tmp_path / "out"
    out.mkdir()
    scenario.prepare(out)
    when = moment(steady, scenario, number, MOMENTS if full else SAMPLED_MOMENTS)
    print(f"{name}, {when}, of {steady.seconds:.2f} s and {steady.events} events")
    run_killed(scenario, out, when)
    scenario.check_killed(out, steady.out)
    options = scenario.options(out)
    again = run_beside(*scenario.words(out), path=options.pop("site"), **options)
    assert again.code == 0, again.stderr
    scenario.check_complete(out, steady.out)
