"""`fommctl reproduce` as people run it: the whole of it, gone on with, stopped, and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import command_line
import pytest

Run = Callable[..., command_line.Result]
SYSTEMS = ("small-fomm", "small-x2face")
TINY = ("--metrics", "l1.paper,psnr", "--device", "cpu", "--set", "train_params.batch_size=2")
WAIT_S = 300
pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(out: Path, data: Path, *more: str | Path) -> list[str]:
    words = ["reproduce", "-o", out, "--data", data, "--systems", ",".join(SYSTEMS), "--seeds", "1", *TINY, *more]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def made(training_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, command_line.Result]:
    """Two systems, two steps each, in this process."""
    out = tmp_path_factory.mktemp("reproduction") / "out"
    return out, command_line.run_inside(*arguments(out, training_clips, "--steps", "2", "--workers", "0", "--json"))


@pytest.mark.slow
def test_what_is_written(made: tuple[Path, command_line.Result]) -> None:
    out, result = made
    assert result.code == 0, result.stderr
    found = result.json()
    assert [system["name"] for system in found["systems"]] == list(SYSTEMS)
    assert [system["row"] for system in found["systems"]] == ["FOMM", "X2Face"]
    assert json.loads((out / "results.json").read_text()) == {
        key: value for key, value in found.items() if key not in ("output", "failed")
    }
    for system in SYSTEMS:
        assert (out / "runs" / system / "seed-0" / "model.safetensors").is_file()
        assert (out / "runs" / system / "seed-0" / "metrics.jsonl").read_text().count("\n") == 2
    assert (out / "evaluation/seed-0/report.html").is_file()
    assert not (out / ".reproduce.lock").exists()


@pytest.mark.slow
def test_its_scores_are_those_of_evaluate(made: tuple[Path, command_line.Result]) -> None:
    """One seed: the mean over seeds is that of the evaluation, which is kept beside it."""
    out, result = made
    summary = json.loads((out / "evaluation/seed-0/summary.json").read_text())
    for system in result.json()["systems"]:
        for metric, score in system["scores"].items():
            theirs = summary["models"][system["name"]]["metrics"][metric]
            assert score["mean"] == pytest.approx(theirs["mean"])
            assert score["seeds"] == [pytest.approx(theirs["mean"])]
            assert (score["frames"], score["coverage"]) == (theirs["frames"], theirs["coverage"]) == (6, 1)


@pytest.mark.slow
def test_the_tables_set_the_paper_beside(made: tuple[Path, command_line.Result]) -> None:
    text = (made[0] / "README.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| `small-x2face`"))
    assert row.endswith("| 0.080 | 17.654 | 0.109 | 0.272 |")
    assert "ours: l1.paper ↓" in text
    assert "paper, Tai-Chi-HD: L1 ↓" in text
    assert "recalled, not checked again" in text


@pytest.mark.slow
def test_the_same_again_trains_nothing(
    made: tuple[Path, command_line.Result], training_clips: Path, run_cli: Run
) -> None:
    out, first = made
    models = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/model.safetensors")}
    again = run_cli(*arguments(out, training_clips, "--steps", "2", "--workers", "0", "--json"))
    assert again.code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert again.json()["systems"] == first.json()["systems"]


@pytest.mark.slow
def test_other_settings_are_not_mixed_in(
    made: tuple[Path, command_line.Result], training_clips: Path, run_cli: Run
) -> None:
    result = run_cli(*arguments(made[0], training_clips, "--steps", "3", "--workers", "0"))
    assert result.code == 2
    assert "a reproduction with other steps" in result.stderr
    changed = ("--steps", "2", "--set", "small-fomm:train_params.warmup_steps=1")
    result = run_cli(*arguments(made[0], training_clips, *changed))
    assert result.code == 2
    assert "a reproduction with other small-fomm preset" in result.stderr


@pytest.mark.slow
def test_stopped_it_goes_on_where_it_was(training_clips: Path, tmp_path: Path, run_cli: Run) -> None:
    """Ctrl-C reaches the command alone, as from a terminal that knows nothing of its workers."""
    out = tmp_path / "out"
    words = [*arguments(out, training_clips, "--steps", "40", "--workers", "1"), "--systems", "small-x2face"]
    command = [sys.executable, "-m", "fommctl", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=command_line.environment())
    log = out / "runs/small-x2face/seed-0/metrics.jsonl"
    until = time.monotonic() + WAIT_S
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    done = log.read_bytes().count(b"\n")
    assert done < 40
    assert len(list(log.parent.glob("checkpoints/step-*.pt"))) == 1
    result = run_cli(*words, "--workers", "0", "--json")
    assert result.code == 0, result.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(40))


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--systems", "small-fom"], 2, "unknown preset 'small-fom'"),
        (["--set", "small-x:a=1"], 2, "no system is meant by --set 'small-x:a=1'"),
        (["--set", "small-fomm:dataset_params.frame_shape=[32, 32, 3]"], 2, "the systems' frames differ in size"),
        (["--metrics", "nonesuch"], 2, "nonesuch"),
        (["--data", "absent"], 3, "absent"),
    ],
)
def test_refused_before_any_work(
    more: list[str], code: int, message: str, training_clips: Path, tmp_path: Path, run_cli: Run
) -> None:
    result = run_cli(*arguments(tmp_path / "out", training_clips, "--steps", "2", *more))
    assert result.code == code, result.stderr
    assert message in result.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_a_folder_of_something_else_is_left_alone(training_clips: Path, tmp_path: Path, run_cli: Run) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = run_cli(*arguments(tmp_path, training_clips))
    assert result.code == 2
    assert "holds no reproduction" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
