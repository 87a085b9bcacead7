"""Progress: on a terminal only, and out of the way of messages."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Result, environment, run_process
from distributions import install
from trouble import TROUBLE


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path, TROUBLE, name="trouble-plugin", entry="trouble")


def on_a_terminal(site: Path, *flags: str) -> Result:
    """`fommctl trouble work` with stderr on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fommctl", "trouble", "work", *flags]
    changed = environment(site, TERM="xterm", COLUMNS="80")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=changed, text=True) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:
            os.close(ours)  # so Linux says that the other end was closed
        stdout = process.stdout.read() if process.stdout else ""
    return Result(process.returncode, stdout, seen.decode())


def test_progress_on_a_terminal(site: Path) -> None:
    result = on_a_terminal(site)
    assert (result.code, result.stdout) == (0, "")
    assert "clip [1]" in result.stderr
    assert "3/5" in result.stderr
    assert "frames/s" in result.stderr
    assert "warning: frame 2 is dark\r\n" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-q"], ""),
        (["--json"], "warning: frame 2 is dark\r\n"),
        (["--log-format", "json"], '"message": "frame 2 is dark"'),
    ],
)
def test_no_progress_where_it_is_not_wanted(site: Path, flags: list[str], message: str) -> None:
    result = on_a_terminal(site, *flags)
    assert "5/5" not in result.stderr
    assert "clip" not in result.stderr
    assert message in result.stderr


def test_no_progress_without_a_terminal(site: Path) -> None:
    assert run_process("trouble", "work", path=site) == Result(0, "", "warning: frame 2 is dark\n")


def test_a_narrow_terminal_loses_no_cell() -> None:
    result = run_process("models", "list", COLUMNS="5")
    assert result.code == 0
    assert {"seed-faces", "built-in", "vox-adv-small", "bair"} <= set(result.stdout.split())
