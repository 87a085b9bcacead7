"""`fommctl doctor` on a machine that is well, and on one where nearly everything is broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import distributions
import pytest

ROOT = Path(__file__).parents[2]
KEYS = {"area", "name", "value", "level", "advice", "stops"}
AREAS = ["machine", "packages", "extras", "devices", "codecs", "plugins", "weights", "disk", "environment", "trial"]
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"


@pytest.fixture
def ruin(tmp_path, monkeypatch):
    """The environment of a process in which torch and typer are hidden by files that raise, the built-in model is cut
    short, a plugin does not load, and FOMMCTL_HOME lies below a file."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "fommctl", copy / "fommctl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "presets", copy / "presets")
    model = copy / "fommctl/models/builtin/faces-mini.safetensors"
    model.write_bytes(model.read_bytes()[:1_000_000])
    beside = distributions.install(tmp_path / "beside", distributions.BROKEN, name="their-plugin", entry="theirs")
    for name in ("torch", "typer"):
        (beside / f"{name}.py").write_text(f"raise RuntimeError('this is not {name}')")
    (tmp_path / "file").write_text("x")
    # `python -m` puts the current folder first.
    monkeypatch.chdir(tmp_path)
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (beside, copy))),
        "FOMMCTL_HOME": str(tmp_path / "file" / "home"),
        "HF_TOKEN": TOKEN,
        "HOME": str(tmp_path),
    }


def by_name(report):
    return {(check["area"], check["name"]): check for check in report["checks"]}


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.slow
def test_a_machine_that_is_well(run_process, tmp_path, json_keys):
    result = run_process("doctor", "--json", "--timeout", "200", HOME=str(tmp_path), HF_TOKEN=TOKEN)
    report = result.json()
    assert (result.code, report["ok"]) == (0, True), report
    assert list(report) == ["ok", "problems", "checks", "versions", "devices"]
    assert list(dict.fromkeys(check["area"] for check in report["checks"])) == AREAS
    assert all(set(check) == KEYS and check["level"] in ("ok", "note", "problem") for check in report["checks"])
    assert report["problems"] == sum(check["level"] == "problem" for check in report["checks"])
    assert all(check["advice"] for check in report["checks"] if check["level"] == "problem")
    json_keys("doctor", {**report, "devices": report["devices"][:1]}, free=("versions",))
    checks = by_name(report)
    assert checks["trial", "animate"]["value"].startswith("faces-mini on ")
    assert checks["packages", "torch"]["value"] == report["versions"]["torch"]
    assert checks["environment", "HF_TOKEN"]["value"] == "set (not shown)"
    assert len(report["versions"]["built-in model"]) == 64
    cpu = report["devices"][0]
    assert cpu["name"] == "cpu"
    assert cpu["auto"] in ("fp32", "bf16")
    assert cpu["speedup"]["bf16"] > 0
    assert TOKEN not in result.stdout + result.stderr
    assert str(tmp_path) not in result.stdout


def test_a_machine_that_is_not(run_process, ruin, tmp_path):
    result = run_process("doctor", "--json", **ruin)
    report = result.json()
    assert (result.code, report["ok"]) == (5, False)
    checks = by_name(report)
    problems = {key for key, check in checks.items() if check["level"] == "problem"}
    assert problems >= {
        ("packages", "torch"),
        ("packages", "typer"),
        ("devices", "torch"),
        ("plugins", "theirs"),
        ("weights", "built-in"),
        ("disk", "FOMMCTL_HOME"),
        ("trial", "animate"),
    }
    torch = checks["packages", "torch"]
    assert torch["stops"]
    assert torch["value"].endswith("which is not of this distribution: RuntimeError: this is not torch")
    assert torch["advice"] == "Rename or remove ~/beside/torch.py; it hides the package."
    assert checks["weights", "built-in"]["value"].endswith("has 1,000,000 bytes, its header states 4,578,918")
    assert checks["plugins", "theirs"]["stops"] is False
    assert checks["disk", "FOMMCTL_HOME"]["value"] == "~/file/home cannot be written to: ~/file is a file"
    # What is not broken is said to be well.
    assert checks["codecs", ".mkv"]["level"] == checks["packages", "av"]["level"] == "ok"
    assert TOKEN not in result.stdout + result.stderr
    assert str(tmp_path) not in result.stdout


def test_the_text_and_what_other_commands_say(run_process, ruin):
    text = run_process("doctor", **ruin, COLUMNS="80")
    assert text.code == 5
    assert text.stderr == ""
    head, _, tail = text.stdout.partition("\n\n")
    assert head.splitlines()[0] == "machine"
    assert "  PROBLEM torch                2" in head
    assert tail.splitlines()[0].endswith("of which keep 'fommctl animate' from working here.")
    assert "   -> Rename or remove ~/beside/typer.py; it hides the package." in tail
    other = run_process("animate", "--json", **ruin)
    assert other.code == 5
    assert json.loads(other.stdout, parse_constant=refuse)["error"] == {
        "message": "a package that fommctl needs cannot be loaded: RuntimeError: this is not typer",
        "hint": "Run 'fommctl doctor'; it says what to do.",
        "exit_code": 5,
    }


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "| head -c 1"])
def test_closed_streams(closed, ruin):
    line = f"'{sys.executable}' -m fommctl doctor --timeout 30 {closed}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, env={**os.environ, **ruin})
    assert done.returncode == 5, done.stderr
    assert b"Traceback" not in done.stderr
