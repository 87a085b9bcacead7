"""Inputs and undisturbed runs of the scenarios, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fault_scenarios import Inputs, scenarios, write_inputs
from faults import Undisturbed, undisturbed


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    """whole(name): returns the undisturbed run of a scenario."""
    made: dict[str, Undisturbed] = {}

    def run(name: str) -> Undisturbed:
        if name not in made:
            made[name] = undisturbed(scenarios(inputs)[name], tmp_path_factory.mktemp(name))
        return made[name]

    return run
