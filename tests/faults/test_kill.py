"""SIGKILL at random moments: what has its name is whole, nobody lives on, and the next run completes the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
from fault_scenarios import Inputs, scenarios, write_inputs
from faults import Undisturbed, moment, run_killed, undisturbed

NAMES = ("animate", "pictures", "crop", "crop-workers", "preprocess", "preprocess-workers", "train", "train-workers")
NAMES = (*NAMES, "batch", "batch-workers", "import")
SAMPLE = ("animate", "crop", "preprocess")
"""In `make test`, where `train` and `batch` have tests of their own that kill them."""
MOMENTS, SAMPLED_MOMENTS = 20, 2
Wholes = Callable[[str], Undisturbed]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        metafunc.parametrize("name", NAMES if full else SAMPLE)
        metafunc.parametrize("number", range(MOMENTS if full else SAMPLED_MOMENTS))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def wholes(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """The undisturbed run of a scenario, made once."""
    made: dict[str, Undisturbed] = {}

    def whole(name: str) -> Undisturbed:
        if name not in made:
            made[name] = undisturbed(scenarios(inputs)[name], tmp_path_factory.mktemp(name))
        return made[name]

    return whole


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_and_run_again(
    name: str,
    number: int,
    full: bool,
    inputs: Inputs,
    wholes: Wholes,
    run_beside: Callable[..., command_line.Result],
    tmp_path: Path,
) -> None:
    scenario, whole, out = scenarios(inputs)[name], wholes(name), tmp_path / "out"
    out.mkdir()
    scenario.prepare(out)
    when = moment(whole, scenario, number, MOMENTS if full else SAMPLED_MOMENTS)
    print(f"{name}, {when}, of {whole.seconds:.2f} s and {whole.events} events")
    run_killed(scenario, out, when)
    scenario.check_killed(out, whole.out)
    options = scenario.options(out)
    again = run_beside(*scenario.words(out), path=options.pop("site"), **options)
    assert again.code == 0, again.stderr
    scenario.check_complete(out, whole.out)
