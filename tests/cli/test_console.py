"""Progress is shown only on a terminal and does not disturb messages; stdout has the result and nothing else."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Result, environment, run_process
from distributions import install
from forked_commands import run_forked
from PIL import Image
from trouble import TROUBLE


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path, TROUBLE, name="trouble-plugin", entry="trouble")


def on_a_terminal(site: Path, *flags: str) -> Result:
    """Run `fommctl trouble work` with stderr on a terminal of 80 columns."""
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
            os.close(ours)  # how Linux reports that the other end was closed
        stdout = process.stdout.read() if process.stdout else ""
    return Result(process.returncode, stdout, seen.decode())


def test_progress_on_a_terminal(site: Path) -> None:
    result = on_a_terminal(site)
    assert (result.code, result.stdout) == (0, "")
    assert "clip [1]" in result.stderr
    assert "3/5" in result.stderr
    assert "frames/s" in result.stderr
    assert "warning: frame 2 is dark\r\n" in result.stderr
    # Before there is anything to count: the phase, and no bar that looks full.
    assert "searching" in result.stderr.partition("━")[0]
    assert "0/?" not in result.stderr
    # Lines of libraries appear above the bar, except mere remarks.
    assert "E0000 a library is \ufffd[31min trouble\r\n" in result.stderr
    assert "TensorFlow Lite" not in result.stderr
    assert "info: INFO: Created TensorFlow Lite XNNPACK delegate" in on_a_terminal(site, "-v").stderr


def test_a_terminal_that_goes_away_costs_the_messages_only(site: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fommctl", "trouble", "work"]
    changed = environment(site, TERM="xterm", COLUMNS="80")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=changed, text=True) as process:
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        stdout = process.stdout.read() if process.stdout else ""
    assert (process.returncode, stdout) == (0, "")


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
    result = run_process("trouble", "work", path=site)
    assert (result.code, result.stdout, result.stderr.splitlines()[-1]) == (0, "", "warning: frame 2 is dark")
    assert "clip" not in result.stderr


def test_a_narrow_terminal_loses_no_cell() -> None:
    result = run_process("models", "list", COLUMNS="5")
    assert result.code == 0
    assert {"faces-mini", "built-in", "vox-adv-small", "bair"} <= set(result.stdout.split())


NOISY = """
    import os
    from fommctl.api import hookimpl

    print("printed at import")
    os.write(1, b"written at import\\n")


    @hookimpl
    def fommctl_stage_started(event):
        print("printed by a listener")
        os.system("echo said by a program")


    @hookimpl
    def fommctl_frame(event):
        def filter(frame, *_):
            print("printed by a filter")
            os.write(1, b"written by a filter\\n")
            return frame

        return filter
"""


def test_whatever_prints_stdout_holds_one_json_object(tmp_path: Path) -> None:
    install(tmp_path / "site", NOISY, name="noisy-plugin", entry="noisy")
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[:, None], (1, 128, 3)).reshape(128, 128, 3)
    Image.fromarray(ramp).save(tmp_path / "still.png")
    picture = tmp_path / "still.png"
    arguments = ("animate", picture, picture, "-o", tmp_path / "out.mkv", "--crop", "none", "--json")
    result = run_forked(*arguments, path=tmp_path / "site")
    assert result.code == 0, result.stderr
    assert result.json()["frames"] == 1
    for who in ("printed at import", "written at import", "printed by a filter", "written by a filter", "a program"):
        assert who in result.stderr
    again = run_forked(*arguments, path=tmp_path / "site")
    assert (again.code, again.json()["error"]["exit_code"]) == (2, 2)


@pytest.mark.parametrize(
    "arguments", [["presets", "list"], ["presets", "list", "--json"], ["presets", "show", "vox", "--json"]]
)
def test_a_result_that_cannot_be_written(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fommctl", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: the disk is full")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
