"""`torchrun -m fommctl train` in two processes on the CPU."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import command_line
import numpy as np
import pytest
from forked_commands import ForkedCommand
from media_factory import write_frames

CLIPS, FRAMES, SIDE = 4, 4, 64
WAIT_S = 120


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured squares that move over a grey gradient."""
    folder = tmp_path_factory.mktemp("clips")
    slope = np.linspace(0, 120, SIDE, dtype=np.uint8)[None, :, None].repeat(SIDE, 0).repeat(3, 2)
    for number in range(CLIPS):
        frames = []
        for index in range(FRAMES):
            frame = slope.copy()
            frame[10 + 4 * number : 30 + 4 * number, 8 + 9 * index : 28 + 9 * index, number % 3] = 250
            frames.append(frame)
        write_frames(folder / "train" / f"square#{number}", frames)
    return folder


def arguments(clips: Path, out: Path, *more: str) -> list[str]:
    settings = ("train_params.batch_size=4", "train_params.num_repeats=50")
    common = ["--preset", "smoke", "--data", str(clips), "--out", str(out), "--device", "cpu", "--precision", "fp32"]
    quick = ["--workers", "0", "--pictures-every", "0"]
    return ["train", *common, *quick, *(word for one in settings for word in ("--set", one)), *more]


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the number of threads, so that torchrun prints no message about it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def torchrun(*words: str) -> list[str]:
    """Return the command that runs `fommctl WORDS` in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *launcher, "-m", "fommctl", *words]


def told_by_torchrun() -> list[dict[str, str]]:
    """Return the environment that torchrun gives each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    count = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [{**where, **count, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def own_lines(stderr: str) -> list[str]:
    """Return fommctl's own lines, without messages of torchrun and torch."""
    launcher = "torch/distributed/"
    lines = [line for line in stderr.splitlines() if launcher not in line]
    return lines[: lines.index("Traceback (most recent call last):")] if "Traceback" in stderr else lines


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(
    clips: Path,
    tmp_path: Path,
    run_cli: Callable[..., command_line.Result],
) -> None:
    # Adam's first steps are as large as the learning rate even if a gradient is mere rounding: at a hundredth of
    # the preset's rates, runs that round differently stay together. At full rates they do so in double precision:
    # see the unit tests.
    slow = [f"train_params.lr_{name}=2e-6" for name in ("generator", "discriminator", "kp_detector")]
    slowly = [word for one in slow for word in ("--set", one)]
    assert run_cli(*arguments(clips, tmp_path / "one", "--max-steps", "6", *slowly)).code == 0
    words = arguments(clips, tmp_path / "two", "--max-steps", "4", "--json", *slowly)
    with ExitStack() as running:
        pair = [running.enter_context(ForkedCommand(*words, **told)) for told in told_by_torchrun()]
        texts = [process.communicate(WAIT_S) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], texts
    (stdout, stderr), (other_stdout, other_stderr) = texts
    assert json.loads(stdout)["steps"] == 4
    assert not [line for line in own_lines(stderr) if not line.startswith("step ")]
    # It may have started before the first process, and says what it waits for.
    rest = [line for line in own_lines(other_stderr) if "process 1 of 2 waits for" not in line]
    assert (other_stdout, rest) == ("", [])
    # One process resumes where two stopped.
    on = run_cli(*arguments(clips, tmp_path / "two", "--max-steps", "6", "--resume", "auto", *slowly))
    assert on.code == 0, on.stderr
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(alone) == len(together) == 6
    assert {"gen_gan", "feature_matching", "equivariance_jacobian", "disc_gan"} <= alone[0].keys()
    for expected, found in zip(alone, together, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_signal_saves_and_ends_all(clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = subprocess.Popen(
        torchrun(*arguments(clips, run)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + WAIT_S
        while not (run / "metrics.jsonl").exists() and time.monotonic() < until and started.poll() is None:
            time.sleep(0.1)
        started.send_signal(signal.SIGTERM)
        stdout, stderr = started.communicate(timeout=WAIT_S)
    finally:
        started.kill()
    assert started.returncode
    done = len(losses(run))
    saved = run / "checkpoints" / f"step-{done:08d}.pt"
    assert list(saved.parent.iterdir()) == [saved]
    assert stderr.count("error: ") == stderr.count("hint: ") == 1
    assert f"error: stopped after {done} of 100 steps; {saved} is written" in stderr
    assert "terminate called" not in stderr
    assert stdout == ""


def test_an_error_is_reported_once(clips: Path, tmp_path: Path) -> None:
    """By the first process; torchrun, which the test replaces, ends the other one when the first has failed."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    words = arguments(clips, run, "--json")
    with ExitStack() as running:
        first, other = [running.enter_context(ForkedCommand(*words, **told)) for told in told_by_torchrun()]
        stdout, stderr = first.communicate(WAIT_S)
        other.send_signal(signal.SIGTERM)
        other_stdout, other_stderr = other.communicate(WAIT_S)
    assert (first.returncode, json.loads(stdout)["error"]["message"]) == (2, f"the output folder is not empty: {run}")
    assert other.returncode not in (0, None)
    assert (other_stdout, "terminate called" in stderr + other_stderr) == ("", False)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
