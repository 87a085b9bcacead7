"""`--nproc`: what is launched, and what is refused. Launching itself is tested from end to end."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer

from fommctl.cli import launch
from fommctl.cli.session import Session
from fommctl.errors import JobsFailedError, UsageError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["train", "--nproc", "2", "--set", "a=--nproc"], ["train", "--set", "a=--nproc"]),
        (["train", "--preset", "x", "--nproc=4"], ["train", "--preset", "x"]),
        (["train", "-v"], ["train", "-v"]),
    ],
)
def test_processes_get_the_command_without_nproc(given: list[str], kept: list[str]) -> None:
    assert launch.without_nproc(given) == kept


def refused(count: int, device: str) -> str:
    with pytest.raises(UsageError) as caught:
        launch.launch(["train"], count, device, Session())
    return caught.value.message


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert refused(3, "cuda") == "--nproc 3, and this machine has 2 GPUs"
    assert refused(3, "auto") == "--nproc 3, and this machine has 2 GPUs"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert refused(2, "cuda") == "--nproc 2, and this machine has 0 GPUs"


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_for_all(device: str) -> None:
    assert refused(2, device) == f"2 processes cannot all compute on '{device}'"


def test_within_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    assert refused(2, "cpu") == "--nproc within torchrun or srun, which start processes themselves"


def failures(*codes: int) -> Any:
    """The first one to fail comes first."""
    return {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(codes)}


def test_the_code_of_the_first_process_that_failed() -> None:
    with pytest.raises(typer.Exit) as caught:
        launch._failed(failures(3, -signal.SIGTERM), 2)
    assert caught.value.exit_code == 3


def test_a_killed_process() -> None:
    with pytest.raises(JobsFailedError, match="process 0 of 2 was ended by SIGKILL"):
        launch._failed(failures(-signal.SIGKILL, -signal.SIGTERM), 2)
    # The other one has told that it lost the connection.
    with pytest.raises(typer.Exit) as caught:
        launch._failed(failures(-signal.SIGKILL, 6), 2)
    assert caught.value.exit_code == JobsFailedError.exit_code


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with launch._environment(4):
        assert os.environ["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with launch._environment(4):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"
