"""Several processes that need the same resource at the same time: one wins or all agree; the others wait or report why
not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Result
from fault_scenarios import PRESET, TINY, Inputs, scenarios
from faults import PATIENCE_S, Undisturbed, hidden, run, start
from file_server import serving
from weights_plugin import spec, write_distribution

FOLDERS = ("train", "crop", "preprocess")
"""Commands that lock their folder."""
REFUSED = {"train": "another training run is writing to", "crop": "another run is writing to"}
REFUSED["preprocess"] = REFUSED["crop"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "together" in metafunc.fixturenames:
        metafunc.parametrize("together", (2, 4) if full else (2,))
    if "folder" in metafunc.fixturenames:
        metafunc.parametrize("folder", FOLDERS if full else ("crop",))


def at_once(together: int, *words: str | Path, **options) -> Iterator[Result]:
    """Start this many processes with the same command."""
    processes = [start(*words, **options) for _ in range(together)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        yield Result(process.returncode, stdout, stderr)


@pytest.mark.slow
def test_a_model_is_pulled_once(together: int, isolated: Path, tmp_path: Path) -> None:
    content = Path(TINY[1]).read_bytes()
    with serving(content) as server:
        site = write_distribution(tmp_path / "site", spec("tiny", f"{server.address}/tiny.pth.tar"))
        results = list(at_once(together, "models", "pull", "tiny", "--json", site=site, FOMMCTL_OFFLINE="0"))
    assert [result.code for result in results] == [0] * together, results
    fetched = [result.json()["models"][0]["fetched"] for result in results]
    assert (sorted(fetched)[-2:], len(server.requests)) == ([False, True], 1)
    assert (isolated / "models" / "tiny.pth.tar").read_bytes() == content
    assert sorted(os.listdir(isolated / "models")) == ["tiny.origin.json", "tiny.pth.tar"]


@pytest.mark.full
def test_two_imports_of_one_name(together: int, isolated: Path) -> None:
    words = ("models", "import", TINY[1], "--preset", PRESET, "--name", "mine", "--json")
    results = list(at_once(together, *words))
    assert sorted(result.code for result in results) == [0] + [2] * (together - 1), results
    for result in results:
        if result.code:
            assert result.json()["error"]["message"] == "there is a model mine already"
    assert os.listdir(isolated / "models") == ["mine.safetensors"]
    shown = run("models", "show", "mine", "--json").json()
    digest = hashlib.sha256((isolated / "models" / "mine.safetensors").read_bytes()).hexdigest()
    assert (shown["sha256"], shown["status"]) == (digest, "available")
    again = list(at_once(together, *words, "--overwrite"))
    assert [result.code for result in again] == [0] * together, again
    assert os.listdir(isolated / "models") == ["mine.safetensors"]


@pytest.mark.slow
def test_two_runs_in_one_folder(
    folder: str, together: int, inputs: Inputs, whole: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    scenario, out = scenarios(inputs)[folder], tmp_path / "out"
    results = list(at_once(together, *scenario.words(out), site=scenario.path))
    assert {result.code for result in results} <= {0, 2}, results
    assert 0 in [result.code for result in results], results
    for result in results:
        assert "Traceback" not in result.stderr
        if result.code:
            assert result.stderr.splitlines()[0] == f"error: {REFUSED[folder]} {out}"
    scenario.check_complete(out, whole(folder).out)


@pytest.mark.full
def test_two_results_of_one_name(
    together: int, inputs: Inputs, whole: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    for name in ("animate", "pictures"):
        scenario, out = scenarios(inputs)[name], tmp_path / name
        out.mkdir()
        results = list(at_once(together, *scenario.words(out)))
        assert [result.code for result in results] == [0] * together, results
        scenario.check_complete(out, whole(name).out)
        assert hidden(out) == []


@pytest.mark.slow
def test_one_that_takes_the_place_of_a_killed_one(inputs: Inputs, tmp_path: Path) -> None:
    """The lock of a dead process does not block the next one, even immediately after its death."""
    scenario, out = scenarios(inputs)["crop"], tmp_path / "out"
    with start(*scenario.words(out), site=scenario.path) as first:
        while not (out / ".fommctl-crop").exists():
            assert first.poll() is None
        first.kill()
        first.wait()
        assert run(*scenario.words(out), site=scenario.path).code == 0


def test_a_folder_is_exclusive(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from fommctl.errors import UsageError
from fommctl.files import exclusive_folder
folder = Path({str(tmp_path)!r})
for _ in range(300):
    try:
        with exclusive_folder(folder, ".lock"):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "inside")
    except UsageError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=PATIENCE_S) == (None, "")
    assert os.listdir(tmp_path) == [".lock"]
