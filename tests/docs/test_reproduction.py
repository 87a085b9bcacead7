"""docs/reproduction/reproduce.py: a tiny run from data to page, its repetition, and the meaning of its numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import command_line
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/reproduction/reproduce.py"
TINY = ("--steps", "2", "--points", "1", "--seeds", "1", "--ablation-seeds", "0", "--sets", "reach")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reproduction", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


class AtOnce(Executor):
    """An executor that runs jobs immediately, in this process and thread."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def inside(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m fommctl WORDS` in this process."""
    done = command_line.run_inside(*command[3:])
    return subprocess.CompletedProcess(command, done.code, done.stdout, done.stderr)


def words(out: Path, *more: str) -> list[str]:
    return [str(SCRIPT), "-o", str(out), *TINY, "--page", str(out / "README.md"), *more]


@pytest.fixture
def reproduce(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(script, "ThreadPoolExecutor", lambda jobs: AtOnce())
    monkeypatch.setattr(script, "as_completed", list)
    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=inside))

    def run(out: Path, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", words(out, *more))
        assert script.main() == 0

    return run


@pytest.mark.slow
def test_from_data_to_page_and_the_same_again(
    tmp_path: Path, script: ModuleType, reproduce: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mine = ("# Mine\n\n<!-- results: written by reproduce.py -->\nold\n<!-- end of results -->\n", "Kept.\n")
    (out / "README.md").write_text("".join(mine))
    systems = ("--systems", "small-fomm")
    reproduce(out, *systems)
    text = (out / "README.md").read_text()
    assert text.startswith("# Mine\n\n<!-- results: written by reproduce.py -->\n\nMade by ")
    assert text.endswith("<!-- end of results -->\nKept.\n")
    assert "old" not in text
    row = next(line for line in text.splitlines() if line.startswith("| `small-fomm`"))
    assert row.endswith("| 0.063 | 6.862 | 0.036 |")
    assert (out / "curves-reach.svg").read_text().count("<polyline") == 3

    (line,) = (out / "runs.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["set"], found["system"], found["seed"], found["steps"]) == ("reach", "small-fomm", 0, 2)
    assert len(found["clips"]) == 16
    scores = json.loads((out / "runs/reach/small-fomm/seed-0/scores/summary.json").read_text())
    ((step, *ours),) = found["curve"]
    assert step == 2
    for metric, value in zip(script.METRICS, ours, strict=True):
        if metric in {"l1.paper", "psnr", "ssim"}:
            assert value == pytest.approx(scores["metrics"][metric]["mean"], rel=1e-4)
    assert np.nanmean(list(found["clips"].values()), axis=0) == pytest.approx(ours, rel=1e-4)
    # Jacobians are initialised with the identity.
    maps = found["maps"]
    assert maps["distance"] == pytest.approx(maps["distance_of_identity"], rel=0.05)
    assert maps["degrees_of_identity"] > 20
    assert 0 < maps["on_parts"] < 1

    models = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert len(models) == 1
    reproduce(out, *systems)
    assert {path: path.stat().st_mtime_ns for path in models} == models
    # A finished run is known by its line, wherever its folder is.
    (out / "README.md").unlink()
    reproduce(tmp_path / "elsewhere", *systems, "--page", str(out / "README.md"))
    assert not (tmp_path / "elsewhere").exists()
    assert (out / "runs.jsonl").read_text() == f"{line}\n"
    assert row in (out / "README.md").read_text()

    capsys.readouterr()
    reproduce(out, "--systems", "small-monkeynet", "--points", "2", "--dry-run", "--runs", str(tmp_path / "none"))
    printed = capsys.readouterr().out
    left = [line.split()[1] for line in printed.splitlines() if line.startswith("fommctl ")]
    assert left == ["train", "evaluate"]


def test_intervals_and_verdicts(script: ModuleType) -> None:
    """Two systems on ten clips with three seeds each; the first is better by 0.1 in L1 on every clip, and equal in
    PSNR."""
    random = np.random.default_rng(0)
    clips = random.uniform(0.3, 0.5, (10, 1))
    first = [np.hstack([clips + random.normal(0, 0.002, (10, 1))] * 5) for _ in range(3)]
    second = [table + np.array([0.1, 0, 0, 0, 0]) for table in first]
    tables = {"small-fomm": first, "small-monkeynet": second}
    found = {each["metric"]: each for each in script.compared("small-fomm", "small-monkeynet", tables)}
    assert found["l1.paper"]["mean"] == pytest.approx(-0.1)
    assert (found["l1.paper"]["ours"], found["l1.paper"]["paper"]) == ("better", "better")
    assert (found["psnr"]["ours"], found["psnr"]["paper"]) == ("undecided", None)
    low, high = script.summary(first)["l1.paper"]["ci95"]
    assert low < np.mean(first) < high
    assert high - low < 0.1


def test_the_error_of_a_rotation(script: ModuleType) -> None:
    def turn(degrees: float) -> np.ndarray:
        angle = math.radians(degrees)
        return 2 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    assert script.rotation_error(turn(30), turn(10)) == pytest.approx(20)
    assert script.rotation_error(turn(170), turn(-170)) == pytest.approx(20)
