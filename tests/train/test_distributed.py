"""Processes that train together: what they agree on, and that none is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from batches import until
from file_server import answering
from process_groups import free_port, run_together

from fommctl.api.training import ThinPlateTransform, TrainingBatch
from fommctl.errors import InputError, JobsFailedError, UsageError
from fommctl.host import Host
from fommctl.presets.preset import load_preset
from fommctl.train import distributed
from fommctl.train.distributed import Processes, join
from fommctl.train.step import TrainingStep

BATCH, SIDE, STEPS = 4, 64, 3


def test_common_decisions() -> None:
    def work(rank: int) -> tuple[Any, ...]:
        with join("cpu") as processes:
            mean = processes.mean(torch.tensor([1.0, 10.0 * rank]))
            decided = processes.from_first(lambda: f"by {rank}")
            return processes, mean.tolist(), decided, processes.any(rank == 1), processes.any(False)

    for rank, (processes, *found) in enumerate(run_together(work)):
        assert processes == Processes(rank, 2, rank, "cpu")
        assert found == [[1.0, 5.0], "by 0", True, False]


def test_alone() -> None:
    module = torch.nn.Linear(1, 1)
    with join("cpu") as processes:
        assert processes == Processes()
        assert processes.parallel(module) is module
        assert processes.any(True)
        assert processes.from_first(lambda: 3) == 3
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_is_reported_once_and_ends_all(culprit: int) -> None:
    def work(rank: int) -> Any:
        with join("cpu") as processes:
            processes.any(False)
            if rank == culprit:
                raise InputError("no clip can be read")
            processes.any(False)

    answers = run_together(work)
    assert "InputError: no clip can be read" in answers.pop(culprit)
    # The store ends with the first process, and the code may be lost with it.
    assert answers[0] in ({1, 3} if culprit == 0 else {3})


def test_an_error_before_the_group_is_up() -> None:
    def work(rank: int) -> Any:
        if rank == 1:
            # Only this process uses a device that does not exist.
            with join("mps"):
                pass
        with join("cpu"):
            pass

    first, second = run_together(work)
    assert first == 2
    assert "UsageError: 2 processes cannot all use 'mps'" in second


def test_a_process_that_vanishes(tmp_path: Path) -> None:
    noticed = tmp_path / "noticed"

    def work(rank: int) -> Any:
        with join("cpu") as processes:
            processes.any(False)
            if rank == 1:
                torch.distributed.destroy_process_group()
                until(noticed.exists, 20)
                return None
            try:
                processes.any(False)
            finally:
                noticed.touch()

    assert "JobsFailedError: the connection to the other processes was lost" in run_together(work)[0]


def test_a_process_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "MEETING", distributed.timedelta(seconds=1))

    def work(rank: int) -> Any:
        if rank == 1:
            return None
        with join("cpu"):
            pass

    assert "JobsFailedError: only 1 of 2 processes started" in run_together(work)[0]


def test_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "MEETING", distributed.timedelta(seconds=1))
    where = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JobsFailedError, match=r"process 1 of 2 cannot reach 127\.0\.0\.1:9"), join("cpu"):
        pass


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_answers(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(distributed, "MEETING", distributed.timedelta(seconds=1))
    monkeypatch.setattr(distributed, "PATIENCE_S", 2.0 if text == b"" else 30.0)
    with answering(text) as port:
        where = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**where, "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(JobsFailedError, match=rf"process 1 of 2 cannot reach 127\.0\.0\.1:{port}: "), join("cpu"):
            pass


def test_a_master_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The first process waits for the others, reports it, and ends."""
    monkeypatch.setattr(distributed, "MEETING", distributed.timedelta(seconds=1))
    monkeypatch.setattr(distributed, "ATTEMPT_S", 0)
    monkeypatch.setattr(distributed.atexit, "register", lambda *call: None)  # it would end pytest
    where = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "203.0.113.1"}
    for name, value in {**where, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JobsFailedError, match="only 1 of 2 processes started") as error, join("cpu"):
        pass
    assert "203.0.113.1" in str(error.value.hint)
    assert caplog.messages[0] == "process 0 waits for the others: 1 of 2 are here"


def step_of(processes: Processes, host: Host) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return losses of steps in double precision, and sums of all weights and statistics after them."""
    preset = load_preset("smoke", host)
    torch.manual_seed(processes.rank)  # parallel() synchronises the processes
    backend: Any = host.find("backend", preset.backend).build(preset.model_params)
    modules = backend.modules()
    for module in modules.values():
        module.double()
    processes.synchronise_statistics(modules)
    step = TrainingStep(
        backend,
        preset.section("train_params"),
        torch.device("cpu"),
        "fp32",
        parallel=processes.parallel,
        mean=processes.mean,
    )
    for phase in step.phases:
        phase.module.double()
    share = BATCH // processes.world
    own = slice(processes.rank * share, (processes.rank + 1) * share)
    losses = []
    for number in range(STEPS):
        random = torch.Generator().manual_seed(number)
        frames = torch.rand(2, BATCH, 3, SIDE, SIDE, generator=random, dtype=torch.float64)
        pieces = [
            ThinPlateTransform.random(1, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=random)
            for _ in range(BATCH)
        ]
        transform = ThinPlateTransform(
            torch.cat([piece.theta for piece in pieces])[own].double(),
            torch.cat([piece.control_params for piece in pieces])[own].double(),  # type: ignore[misc]
        )
        losses.append(dict(step(TrainingBatch(frames[0, own], frames[1, own], transform)).losses))
    sums = {
        f"{group}/{name}": float(value.double().abs().sum())
        for group, module in modules.items()
        for name, value in module.state_dict().items()
    }
    return losses, sums


def test_two_processes_learn_what_one_learns(host: Host) -> None:
    def work(rank: int) -> Any:
        with join("cpu") as processes:
            return step_of(processes, host)

    losses, sums = step_of(Processes(), host)
    for found, weights in run_together(work):
        for expected, values in zip(losses, found, strict=True):
            # Rounded to single precision for the report.
            assert values == pytest.approx(expected, rel=1e-6)
        # A bias before BatchNorm has no gradient except rounding, which Adam turns into steps.
        assert weights == pytest.approx(sums, rel=1e-7)


@pytest.mark.parametrize(("name", "message"), [("mps", "cannot all use 'mps'"), ("cuda:1", "'cuda:1'")])
def test_devices_that_all_would_share(name: str, message: str) -> None:
    def work(_: int) -> Any:
        with join(name):
            pass

    answers = run_together(work)
    assert sorted(answer == UsageError.exit_code for answer in answers) == [False, True]
    assert any(message in str(answer) for answer in answers), answers


def test_the_threads_of_the_group_end_with_it() -> None:
    """A remaining thread would meet the end of the interpreter: `terminate called without an active exception`."""

    def work(_: int) -> set[str]:
        with join("cpu") as processes:
            network = torch.nn.Sequential(torch.nn.Linear(2, 2))
            network.itself = [network]  # type: ignore[assignment]
            processes.parallel(network)(torch.ones(1, 2)).sum().backward()
            del network
        return {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}

    for names in run_together(work):
        assert not [name for name in names if "gloo" in name]


def test_one_process_loads_nothing_of_this() -> None:
    code = """
        import sys
        from fommctl.train.distributed import join
        with join("cpu"):
            pass
        heavy = ("elastic", "fommctl.networks.layers", "torch.distributed.nn.functional")
        print([name for name in sys.modules if any(part in name for part in heavy)])
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
