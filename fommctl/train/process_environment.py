"""Which of several processes this one is: torchrun and Slurm's srun say it in environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fommctl.errors import UsageError

_FIRST_PORT, _PORTS = 10000, 20000
"""Of Slurm jobs: below those that systems give to outgoing connections."""


@dataclass(frozen=True, slots=True)
class Place:
    """This process among `world` of them."""

    rank: int
    world: int
    local_rank: int
    """Among those of this machine."""
    host: str
    """Where the store is to which all processes connect."""
    port: int
    hosted: bool
    """Is the store kept by the launcher? Else by the process of rank 0."""
    shares_devices: bool
    """Do all processes of a machine see all its GPUs? Else the one that a process sees is its own."""
    attempt: str = "0"
    """Of torchrun, which may start the processes again."""


def find_place(environment: Mapping[str, str]) -> Place | None:
    """From torchrun's variables, else from those of srun; None where there is one process only.

    Raises UsageError where a variable is missing or no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        place = _of_torchrun(environment)
    elif "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        # A batch script that is no step of srun has SLURM_PROCID and SLURM_NTASKS too, and is alone.
        place = _of_slurm(environment)
    else:
        return None
    return place if place.world > 1 else None


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    return Place(
        _number(environment, "RANK"),
        _number(environment, "WORLD_SIZE"),
        _number(environment, "LOCAL_RANK"),
        _text(environment, "MASTER_ADDR"),
        _number(environment, "MASTER_PORT"),
        hosted=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        shares_devices=True,
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _of_slurm(environment: Mapping[str, str]) -> Place:
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    nodes = "SLURM_STEP_NODELIST" if "SLURM_STEP_NODELIST" in environment else "SLURM_JOB_NODELIST"
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID")
    return Place(
        _number(environment, "SLURM_PROCID"),
        _number(environment, tasks),
        _number(environment, "SLURM_LOCALID"),
        environment.get("MASTER_ADDR") or first_host(_text(environment, nodes)),
        _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else _port(job, step),
        hosted=False,
        shares_devices=False,
    )


def first_host(nodes: str) -> str:
    """Of a list of Slurm, such as `node[01-04,07],login1`: node01."""
    match = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", match[0]) if match else nodes


def _port(job: int, step: int) -> int:
    """The same in all processes of a step, another one in the other steps and jobs of a machine."""
    return _FIRST_PORT + (job * 31 + step) % _PORTS


def _text(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise UsageError(
            f"the environment variable {name} is missing, and this is one of several processes",
            "Launch them with --nproc, torchrun or srun.",
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not text.isdecimal():
        raise UsageError(
            f"the environment variable {name} is no number: {text}", "Launch with --nproc, torchrun or srun."
        )
    return int(text)
