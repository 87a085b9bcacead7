"""`fommctl doctor` on a working machine, and on machines where something or nearly everything is broken."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_line
import distributions
import pytest
import torch

from fommctl.doctor.libraries import check_device
from fommctl.doctor.run import run_steps

ROOT = Path(__file__).parents[2]
KEYS = {"area", "name", "value", "level", "advice", "stops"}
AREAS = ["machine", "packages", "extras", "devices", "codecs", "plugins", "weights", "disk", "environment", "trial"]
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
Run = Callable[..., command_line.Result]
Rows = Mapping[tuple[str, str], Mapping[str, Any]]
pytestmark = pytest.mark.slow


@pytest.fixture
def ruin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a process in which torch and typer are hidden by files that raise, the built-in model
    is truncated, a plugin does not load, and FOMMCTL_HOME is below a file."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "fommctl", copy / "fommctl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "presets", copy / "presets")
    model = copy / "fommctl/models/builtin/faces-mini.safetensors"
    model.write_bytes(model.read_bytes()[:1_000_000])
    beside = distributions.install(tmp_path / "beside", distributions.BROKEN, name="their-plugin", entry="theirs")
    for name in ("torch", "typer"):
        (beside / f"{name}.py").write_text(f"raise RuntimeError('this is not {name}')")
    (tmp_path / "file").write_text("x")
    # `python -m` puts the current folder first on the path.
    monkeypatch.chdir(tmp_path)
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (beside, copy))),
        "FOMMCTL_HOME": str(tmp_path / "file" / "home"),
        "HF_TOKEN": TOKEN,
        "HOME": str(tmp_path),
    }


def by_name(report: Mapping[str, Any]) -> Rows:
    return {(check["area"], check["name"]): check for check in report["checks"]}


def problems(rows: Rows) -> set[tuple[str, str]]:
    return {key for key, row in rows.items() if row["level"] == "problem"}


def test_a_machine_that_is_well(run_process: Run, tmp_path: Path, json_keys: Callable[..., None]) -> None:
    result = run_process("doctor", "--json", "--timeout", "200", HOME=str(tmp_path), HF_TOKEN=TOKEN)
    report = result.json()
    assert (result.code, report["ok"]) == (0, True), report
    assert list(report) == ["ok", "problems", "checks", "versions", "devices"]
    assert list(dict.fromkeys(check["area"] for check in report["checks"])) == AREAS
    assert all(set(check) == KEYS and check["level"] in ("ok", "note", "problem") for check in report["checks"])
    assert report["problems"] == sum(check["level"] == "problem" for check in report["checks"])
    assert all(check["advice"] for check in report["checks"] if check["level"] == "problem")
    json_keys("doctor", {**report, "devices": report["devices"][:1]}, free=("versions",))
    rows = by_name(report)
    assert rows["trial", "animate"]["value"].startswith("faces-mini on ")
    assert rows["packages", "torch"]["value"] == report["versions"]["torch"]
    assert rows["environment", "HF_TOKEN"]["value"] == "set (not shown)"
    assert rows["codecs", ".mkv"]["value"] == "ffv1, sound by flac; a small clip came back exact"
    assert rows["plugins", "dlib-hog"]["value"] == "face: ready, the default"
    assert len(report["versions"]["built-in model"]) == 64
    cpu = report["devices"][0]
    assert (cpu["kind"], cpu["name"]) == ("cpu", "cpu")
    assert cpu["auto"] in ("fp32", "bf16")
    assert cpu["speedup"]["bf16"] > 0
    assert TOKEN not in result.stdout + result.stderr
    assert str(tmp_path) not in result.stdout


def test_a_machine_that_is_not(run_process: Run, ruin: dict[str, str], tmp_path: Path) -> None:
    result = run_process("doctor", "--json", **ruin, FOMMCTL_PLUGINS="fomm,faces,theirs,nonesuch")
    report = result.json()
    assert (result.code, report["ok"]) == (5, False)
    rows = by_name(report)
    assert problems(rows) >= {
        ("packages", "torch"),
        ("packages", "typer"),
        ("devices", "torch"),
        ("plugins", "theirs"),
        ("weights", "built-in"),
        ("disk", "FOMMCTL_HOME"),
        ("trial", "animate"),
    }
    torch = rows["packages", "torch"]
    assert torch["stops"]
    assert torch["value"].endswith("which is not of this distribution: RuntimeError: this is not torch")
    assert torch["advice"] == "Rename or remove ~/beside/torch.py; it hides the package."
    whole = (ROOT / "fommctl/models/builtin/faces-mini.safetensors").stat().st_size
    assert rows["weights", "built-in"]["value"].endswith(f"has 1,000,000 bytes, its header states {whole:,}")
    assert rows["plugins", "theirs"]["stops"] is False
    assert rows["plugins", "FOMMCTL_PLUGINS"]["value"].endswith("names 'nonesuch', which no installed plugin has")
    assert ("plugins", "robots") not in rows
    assert rows["disk", "FOMMCTL_HOME"]["value"] == "~/file/home cannot be written to: ~/file is a file"
    # The parts that work are reported as fine.
    assert rows["codecs", ".mkv"]["level"] == rows["packages", "av"]["level"] == "ok"
    assert TOKEN not in result.stdout + result.stderr
    assert str(tmp_path) not in result.stdout


def test_without_typer_the_report_is_plain_and_other_commands_name_doctor(
    run_process: Run, ruin: dict[str, str]
) -> None:
    text = run_process("doctor", **ruin)
    assert text.code == 5
    assert text.stderr == ""
    assert text.stdout.startswith("machine, Python: ok: ")
    assert "of which keep 'fommctl animate' from working here." in text.stdout
    assert "packages, typer: Rename or remove ~/beside/typer.py; it hides the package.\n" in text.stdout
    other = run_process("animate", "--json", **ruin)
    assert other.code == 5
    assert other.json()["error"] == {
        "message": "a package that fommctl needs cannot be loaded: RuntimeError: this is not typer",
        "hint": "Run 'fommctl doctor' to see how to fix it.",
        "exit_code": 5,
    }


def test_libraries_and_plugins_that_end_the_process_and_settings_that_make_no_sense(
    run_process: Run, tmp_path: Path
) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    beside = distributions.install(tmp_path / "beside", "import os\nos._exit(3)", name="their-plugin", entry="theirs")
    distributions.install_metadata(beside, "dlib", "9.9", {})
    (beside / "dlib.py").write_text(crash)
    distributions.install_metadata(beside, "pillow", "1.0", {})
    for name in ("opencv-python", "opencv-python-headless"):
        distributions.install_metadata(beside, name, "4.10", {})
        (beside / f"{name.replace('-', '_')}-4.10.dist-info" / "top_level.txt").write_text("cv2")
    changes = {
        "FOMMCTL_HOEM": "/elsewhere",
        "OMP_NUM_THREADS": "many",
        "HF_ENDPOINT": "https://me:secret@example.org",
        "TMPDIR": "/proc/self",
        "NOTE": socket.gethostname(),
    }
    result = run_process("doctor", "--json", path=beside, **changes)
    rows = by_name(result.json())
    assert result.code == 5
    dlib = rows["packages", "dlib-bin"]
    assert dlib["value"].endswith("; 'import dlib' fails: its process was killed by SIGSEGV")
    assert (dlib["level"], dlib["stops"]) == ("problem", True)
    assert rows["plugins", "theirs"]["value"] == "fails: its process ended with code 3"
    assert rows["plugins", "theirs"]["advice"].startswith("Uninstall it or leave it out of FOMMCTL_PLUGINS")
    assert rows["packages", "torch"]["level"] == rows["devices", "cpu"]["level"] == "ok"
    assert rows["codecs", ".mp4"]["level"] == "ok"
    assert rows["environment", "FOMMCTL_HOEM"]["value"] == "unknown to fommctl"
    assert rows["environment", "OMP_NUM_THREADS"]["advice"].startswith("Not a number of threads")
    assert rows["environment", "HF_ENDPOINT"]["value"] == "https://example.org: another server than huggingface.co"
    assert rows["packages", "cv2"]["value"].startswith("cv2 comes from opencv-python and opencv-python-headless")
    pillow = rows["packages", "pillow"]
    assert pillow["value"].startswith(("1.0; needed: ", "installed more than once"))
    assert "NOTE" not in {name for _, name in rows}
    assert "secret" not in result.stdout


def test_a_plugin_that_hangs_costs_the_time_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import time\ntime.sleep(600)"
    beside = distributions.install(tmp_path / "beside", source, name="their-plugin", entry="theirs")
    monkeypatch.syspath_prepend(beside)
    steps = [("codecs", ".mp4"), ("plugins", "theirs"), ("weights", "built-in"), ("trial", "animate")]
    rows = {row.name: row for row in run_steps(steps, 5)}
    assert rows[".mp4"].level == "ok"
    assert rows["theirs"].value == "fails: it took longer than 5 s"
    assert rows["built-in"].level == "note"
    assert rows["built-in"].value == "not checked: theirs took more than 5 s"
    assert rows["animate"].stops


def test_folders_with_leftovers_on_a_full_disk(run_cli: Run, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = isolated / "models"
    models.mkdir()
    for name in (".a.pth.tar.12.tmp", ".b.pth.tar.part", "c.lock", "keep.txt"):
        (models / name).write_bytes(bytes(1024))
        os.utime(models / name, (1e9, 1e9))
    (models / ".young.tmp").write_bytes(bytes(10))
    usage = type("Usage", (), {"total": 64 * 2**20, "free": 10 * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    monkeypatch.setattr("fommctl.doctor.run.run_steps", lambda steps, limit: [])
    result = run_cli("doctor", "--json")
    rows = [check for check in result.json()["checks"] if check["area"] == "disk"]
    assert result.code == 0
    home = rows[0]
    assert (home["name"], home["level"], home["advice"].split(".")[0]) == ("FOMMCTL_HOME", "note", "Free some space")
    assert [row["value"] for row in rows if row["name"] == "leftovers"] == [
        "1 half-written files, 1 kB, older than a day",
        "1 unfinished downloads, 1 kB, older than a day",
        "1 locks, which block nothing, 1 kB, older than a day",
    ]
    shm = [row for row in rows if row["name"] == "/dev/shm"]
    assert all((row["level"], row["value"]) == ("note", "64 MB") for row in shm)
    assert sorted(path.name for path in models.iterdir()) == [
        ".a.pth.tar.12.tmp", ".b.pth.tar.part", ".young.tmp", "c.lock", "keep.txt",
    ]  # fmt: skip


def test_the_text(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from fommctl.doctor.report import Row

    bad = Row(area="weights", name="built-in", value="is gone", level="problem", advice="Get it [back].", stops=True)
    monkeypatch.setattr("fommctl.doctor.run.run_steps", lambda steps, limit: [bad])
    result = run_cli("doctor")
    assert result.code == 5
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "machine"
    assert "  PROBLEM built-in           is gone" in lines
    assert lines[-3:] == [
        "1 problem keeps 'fommctl animate' from working here.",
        "1. weights, built-in: is gone",
        "   -> Get it [back].",
    ]


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "| head -c 1"])
def test_closed_streams(closed: str, ruin: dict[str, str]) -> None:
    line = f"'{sys.executable}' -m fommctl doctor --timeout 30 {closed}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, env={**os.environ, **ruin})
    assert done.returncode == 5, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("built", "available", "name", "value"),
    [
        (None, False, "cuda", "is built for the CPU only, yet there is an NVIDIA driver"),
        ("12.6", False, "cuda", "there is a driver, but no device: "),
        ("12.6", True, "cuda:0", "NVIDIA H100, compute 9.0, 78 GB of 80 GB free; fails at first use: "),
    ],
)
def test_gpus_that_do_not_work(
    built: str | None, available: bool, name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch without CUDA that is told of a card replaces machines that are not available."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 550.54.15\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (78 * 2**30, 80 * 2**30))
    rows = {row.name: row for row in check_device("cuda")}
    assert rows["NVIDIA driver"].value == "550.54.15, 1 GPUs"
    assert value in rows[name].value
    assert rows[name].level == "problem"
    assert rows[name].stops is (name == "cuda:0")
