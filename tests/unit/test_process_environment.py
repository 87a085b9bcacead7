"""What torchrun and srun say in the environment."""

from __future__ import annotations

import pytest

from fommctl.errors import UsageError
from fommctl.train.process_environment import Place, find_place, first_host

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "one.example",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[007-009,12]",
}


def test_torchrun() -> None:
    assert find_place(TORCHRUN) == Place(5, 8, 1, "one.example", 29500, True, True, "2")


def test_srun() -> None:
    place = find_place(SLURM)
    assert place == Place(3, 8, 1, "gpu007", 10000 + (123456 * 31) % 20000, False, False)


def test_srun_of_a_part_of_the_job() -> None:
    step = SLURM | {"SLURM_STEP_ID": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[008-009]"}
    place, of_job = find_place(step), find_place(SLURM)
    assert place is not None
    assert of_job is not None
    assert (place.world, place.host) == (4, "gpu008")
    assert place.port != of_job.port


def test_what_the_caller_sets_stands() -> None:
    place = find_place(SLURM | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"})
    assert place is not None
    assert (place.host, place.port) == ("10.0.0.1", 4000)


def test_torchrun_within_srun() -> None:
    assert find_place(SLURM | TORCHRUN) == find_place(TORCHRUN)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        # A batch script without srun.
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"},
    ],
)
def test_alone(environment: dict[str, str]) -> None:
    assert find_place(environment) is None


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("login1", "login1"),
        ("a1,a2", "a1"),
        ("node[01-04,07]", "node01"),
        ("node[7],gpu[1-2]", "node7"),
        ("rack[1-2]n[03,05]-ib,x", "rack1n03-ib"),
    ],
)
def test_first_host(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": "http"}, "MASTER_PORT is no number: http"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is missing"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is missing"),
    ],
)
def test_broken(change: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_place(TORCHRUN | change)
