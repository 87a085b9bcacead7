"""FOMMCTL_HOME that cannot be written to: commands that do not need it work, the others report it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Result
from fault_scenarios import Inputs
from faults import environment, isolated_mounts, run
from file_server import serving
from shots import ASTRONAUT
from weights_plugin import spec, write_distribution
from written_media import track

READ_ONLY = 'mount -t tmpfs -o ro faults "$1" || exit 99; shift; "$@"'


def run_read_only(home: Path, *words: str | Path, site: Path | None = None, **changes: str) -> Result:
    """Run the command with its home on a read-only file system."""
    home.mkdir(exist_ok=True)
    command = [*isolated_mounts(), READ_ONLY, "sh", str(home), sys.executable, "-m", "fommctl", *map(str, words)]
    own = environment(site, FOMMCTL_HOME=str(home), **changes)
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def attempts(tmp_path: Path, full: bool) -> list:
    """Yield ways to run with a home that cannot be written to: a path below a file, and a read-only file system."""
    (tmp_path / "file").touch()
    below = lambda *words, **more: run(*words, FOMMCTL_HOME=str(tmp_path / "file" / "home"), **more)  # noqa: E731
    mounted = lambda *words, **more: run_read_only(tmp_path / "mounted", *words, **more)  # noqa: E731
    return [below, mounted] if full and isolated_mounts() else [below]


@pytest.mark.slow
def test_the_built_in_model_and_its_detectors_work(full: bool, inputs: Inputs, tmp_path: Path) -> None:
    for number, attempt in enumerate(attempts(tmp_path, full)):
        out = tmp_path / f"{number}.mp4"
        words = (
            "animate",
            ASTRONAUT,
            inputs.clip,
            "-o",
            out,
            "--driving-crop",
            "none",
            "--end",
            "0.32",
            "--device",
            "cpu",
            "--json",
        )
        result = attempt(*words)
        assert result.code == 0, result.stderr
        assert (result.json()["frames"], len(track(out).times)) == (8, 8)
        assert "Traceback" not in result.stderr
        assert len(result.json()["warnings"]) <= 1


@pytest.mark.slow
def test_what_has_to_be_written_there_says_so(full: bool, tmp_path: Path) -> None:
    with serving(b"PK\3\4 weights") as server:
        site = write_distribution(tmp_path / "site", spec("tiny", f"{server.address}/tiny.pth.tar"))
        for attempt in attempts(tmp_path, full):
            result = attempt("models", "pull", "tiny", site=site, FOMMCTL_OFFLINE="0")
            assert result.code == 3, result.stderr
            first, hint = result.stderr.splitlines()
            assert first.startswith("error: cannot ")
            assert hint == "hint: Set FOMMCTL_HOME to a folder that you can write to."
            assert "tiny" in attempt("models", "list", site=site).stdout
        assert server.requests == []
