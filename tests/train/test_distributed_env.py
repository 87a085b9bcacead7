"""The environment set by torchrun."""

from __future__ import annotations

import pytest

from fommctl.errors import UsageError
from fommctl.train.distributed import DistributedEnv

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "one.example",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_torchrun() -> None:
    assert DistributedEnv.read(TORCHRUN) == DistributedEnv(5, 8, 1, "one.example", 29500, True, "2")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"},
        # srun without torchrun: each task is a separate run.
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
    ],
)
def test_alone(environment: dict[str, str]) -> None:
    assert DistributedEnv.read(environment) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": "http"}, "MASTER_PORT is not a number: http"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is missing"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is missing"),
        ({"LOCAL_WORLD_SIZE": "abc"}, "LOCAL_WORLD_SIZE is not a number: abc"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is not a number: -1"),
        ({"RANK": "9" * 40}, "RANK is not a number"),
        ({"RANK": "8"}, "RANK is 8 and WORLD_SIZE 8"),
    ],
)
def test_broken(change: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DistributedEnv.read(TORCHRUN | change)
