"""Progress of a training run: a display on a terminal, lines elsewhere, nothing with --quiet."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from command_line import environment

from fommctl.cli.console import LogFormat, Session
from fommctl.cli.train import SECONDS_BETWEEN_LINES, training_progress

LOSSES = {"perceptual": 81.25, "generator_gan": 0.5}


class Clock:
    """A clock that advances when a step is done."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def train(session: Session, steps: int, seconds: float, *, first: int = 0, total: int | None = None) -> None:
    clock = Clock()
    with training_progress(session, total, first_step=first, clock=clock) as report:
        for step in range(first + 1, first + steps + 1):
            clock.now += seconds
            report(step, step // 100, LOSSES, 12.34, 0.021)


def test_a_line_for_the_first_step_every_half_minute_and_the_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(), steps=100, seconds=1, total=1000)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"step {step}/1000; epoch {step // 100}; perceptual 81.25, generator_gan 0.5; "
        f"12.3 samples/s, waiting for data 2%; {left} left"
        for step, left in ((1, "0:16:39"), (31, "0:16:09"), (61, "0:15:39"), (91, "0:15:09"), (100, "0:15:00"))
    ]


def test_the_time_left_counts_the_steps_of_this_run_only(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(), steps=1, seconds=2, first=900, total=1000)
    assert "step 901/1000" in (line := capsys.readouterr().err)
    assert line.endswith("0:03:18 left\n")


def test_the_time_left_forgets_how_long_the_first_step_took(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with training_progress(Session(), 100, clock=clock) as report:
        for step, seconds in ((1, 60), (2, 1), (3, 3)):
            clock.now += seconds
            report(step, 0, LOSSES, 1.0, 0.0)
    first, last = capsys.readouterr().err.splitlines()
    assert first.endswith("1:39:00 left")
    assert last.endswith("0:03:14 left"), "97 steps of two seconds"


def test_without_a_last_step_there_is_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(), steps=1, seconds=2)
    assert capsys.readouterr().err == (
        "step 1; epoch 0; perceptual 81.25, generator_gan 0.5; 12.3 samples/s, waiting for data 2%\n"
    )


def test_the_last_step_is_reported_where_the_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with training_progress(Session(), 9) as report:
            for step in (1, 2, 3):
                report(step, 0, LOSSES, 1.0, 0.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [line.split(";")[0] for line in capsys.readouterr().err.splitlines()] == ["step 1/9", "step 3/9"]


def test_losses_and_rates_are_running_means(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with training_progress(Session(), None, clock=clock) as report:
        for step, value in ((1, 1.0), (2, 3.0)):
            report(step, 0, {"perceptual": value}, 1.0, 0.6)
        clock.now += SECONDS_BETWEEN_LINES
        report(3, 0, {"perceptual": 8.0, "late": 2.0}, 4.0, 0.0)
        for step in range(4, 2000):
            report(step, 0, {"perceptual": 5.0, "late": 2.0}, 1.0, 0.0)
    _, third, last = capsys.readouterr().err.splitlines()
    assert "perceptual 4, late 2; 2.0 samples/s, waiting for data 40%" in third
    assert "perceptual 5, late 2; 1.0 samples/s, waiting for data 0%" in last, "a mean of the last hundred steps or so"


def test_with_json_lines_go_to_stderr_and_stdout_is_left_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(json=True), steps=1, seconds=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("step 1; epoch 0;")


def test_json_messages(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(log_format=LogFormat.JSON), steps=1, seconds=1)
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "info"
    assert line["message"].startswith("step 1; epoch 0;")


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(quiet=True), steps=100, seconds=60)
    assert capsys.readouterr() == ("", "")


def test_a_run_without_a_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    train(Session(), steps=0, seconds=1)
    assert capsys.readouterr() == ("", "")


SHOW = """
import logging, sys, time
from fommctl.cli import console
from fommctl.cli.console import Session
from fommctl.cli.train import training_progress

console.start_logging("text")
session = Session(quiet="-q" in sys.argv, json="--json" in sys.argv)
with training_progress(session, None if "endless" in sys.argv else 40, first_step=20) as report:
    time.sleep(0.6)
    for step in range(21, 31):
        report(step, 3, {"perceptual [x]": 81.25, "generator_gan": 0.5}, 12.34, 0.021)
        time.sleep(0.06)
        if step == 25:
            logging.getLogger("fommctl.test").warning("step 25 is odd")
"""


def on_a_terminal(*flags: str, columns: int = 80) -> str:
    """Return the output of SHOW on a terminal."""
    ours, theirs = pty.openpty()
    changed = environment(TERM="xterm", COLUMNS=str(columns), LINES="24")
    with subprocess.Popen([sys.executable, "-c", SHOW, *flags], stderr=theirs, env=changed) as process:
        os.close(theirs)
        seen = b"".join(_chunks(ours))
        os.close(ours)
    assert process.returncode == 0
    return seen.decode()


def _chunks(terminal: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(terminal, 4096):
            yield chunk
    except OSError:
        return  # how Linux reports that the other end was closed


def plain(seen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)


def test_the_display_on_a_terminal() -> None:
    seen = plain(on_a_terminal())
    assert re.search(r"step 20/40 +\r\nthe first step takes longest\r\n", seen)
    assert re.search(r"epoch 3 +\S+ +step \d+/40 +0:00:\d\d left", seen)
    assert "12.3 samples/s, waiting for data 2%" in seen
    assert "perceptual [x] 81.25, generator_gan 0.5" in seen
    assert "warning: step 25 is odd\r\n" in seen
    assert seen.count("step 25 is odd") == 1


def test_the_display_without_a_last_step_and_in_a_narrow_terminal() -> None:
    seen = plain(on_a_terminal("endless", columns=30))
    assert re.search(r"step \d+\b(?!/)", seen)
    assert "generator_gan 0.5" in seen.replace("\r\n", " ")


@pytest.mark.parametrize("flag", ["-q", "--json"])
def test_no_display_where_it_is_not_wanted(flag: str) -> None:
    seen = on_a_terminal(flag)
    assert "\x1b" not in seen
    assert ("step 21/40" in seen) == (flag == "--json")
