"""`fommctl models`, as used by people and pipelines."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from command_line import Result
from file_server import serving
from forked_commands import ForkedCommand
from weights_plugin import spec, write_distribution

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
TINY = GOLDEN / "vox-tiny.pth.tar"
TINY_PRESET = GOLDEN / "vox-tiny.model_params.yaml"
Run = Callable[..., Result]


def test_the_list_has_every_model_with_its_status(run_cli: Run) -> None:
    result = run_cli("models", "list", "--json")
    assert result.code == 0
    rows = {row["name"]: row for row in result.json()["models"]}
    assert set(rows["faces-mini"]) == {"name", "summary", "preset", "licence", "status", "size", "path"}
    assert (rows["faces-mini"]["status"], rows["faces-mini"]["preset"]) == ("built-in", "faces-mini")
    assert rows["faces-mini"]["size"] == Path(rows["faces-mini"]["path"]).stat().st_size
    assert (rows["vox"]["status"], rows["vox"]["path"]) == ("not pulled", None)
    text = run_cli("models", "list").stdout
    assert all(name in text for name in rows)


def test_import_list_show_and_remove(run_cli: Run, isolated: Path) -> None:
    result = run_cli("models", "import", TINY, "--name", "mine", "--preset", TINY_PRESET, "--licence", "CC0", "--json")
    path = isolated / "models" / "mine.safetensors"
    assert result.code == 0, result.stderr
    assert result.json()["path"] == str(path)
    shown = run_cli("models", "show", "mine", "--json").json()
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (shown["status"], shown["licence"], shown["training"]) == ("available", "CC0", {"epoch": 3})
    tensors = torch.load(TINY, weights_only=True)
    assert shown["parameters"] == sum(
        tensor.numel() for group in ("generator", "kp_detector", "discriminator") for tensor in tensors[group].values()
    )
    assert "num_kp: 5" in shown["preset_text"]
    again = run_cli("models", "import", TINY, "--name", "mine")
    assert (again.code, again.stderr.splitlines()[0]) == (2, "error: there is a model mine already")
    assert run_cli("models", "remove", "mine", "--json").json() == {"name": "mine", "removed": str(path)}
    assert run_cli("models", "show", "mine").code == 2


def test_export_writes_the_published_layout(run_cli: Run, tmp_path: Path) -> None:
    target = tmp_path / "tiny.pth.tar"
    arguments = ("models", "export", TINY, "-o", target, "--preset", TINY_PRESET)
    result = run_cli(*arguments, "--json")
    assert result.code == 0, result.stderr
    assert result.json() == {
        "model": "vox-tiny",
        "path": str(target),
        "size": target.stat().st_size,
        "networks": ["generator", "kp_detector", "discriminator"],
        "epoch": 3,
    }
    assert list(torch.load(target, weights_only=True)) == ["generator", "kp_detector", "discriminator", "epoch"]
    again = run_cli(*arguments)
    assert (again.code, again.stderr.splitlines()[0]) == (2, f"error: the output already exists: {target}")
    assert run_cli(*arguments, "--overwrite").stdout.endswith("generator, kp_detector, discriminator after epoch 3\n")
    assert run_cli("models", "export", tmp_path / "no.pth.tar", "-o", tmp_path / "a.pth.tar").code == 4
    assert run_cli("models", "export", "vox", "-o", tmp_path / "a.pth.tar").code == 5


def test_show_prints_the_card_of_the_built_in_model(run_cli: Run) -> None:
    result = run_cli("models", "show", "faces-mini")
    assert result.code == 0
    assert "## What it can and cannot do" in result.stdout
    assert "parameters: 2429694" in result.stdout


def test_show_says_where_weights_come_from_and_where_to_put_them(run_cli: Run, isolated: Path) -> None:
    shown = run_cli("models", "show", "vox", "--json").json()
    assert shown["urls"][0].endswith("/vox-cpk.pth.tar")
    assert shown["put_it_at"] == str(isolated / "models" / "vox.pth.tar")


def test_a_pull_in_a_process_of_its_own_can_be_used_at_once(run_process: Run, tmp_path: Path, isolated: Path) -> None:
    with serving(TINY.read_bytes()) as server:
        server.cut_after, server.cuts = 100_000, 1
        site = write_distribution(tmp_path / "site", spec("tiny", f"{server.address}/tiny.pth.tar"))
        pulled = run_process("models", "pull", "tiny", "--json", path=site, FOMMCTL_OFFLINE="0", no_proxy="127.0.0.1")
    assert pulled.code == 0, pulled.stderr
    row = pulled.json()["models"][0]
    assert (row["status"], row["fetched"], row["size"]) == ("available", True, TINY.stat().st_size)
    assert Path(row["path"]).read_bytes() == TINY.read_bytes()
    shown = run_process("models", "show", "tiny", "--json", path=site).json()
    assert shown["origin"]["sha256"] == shown["sha256"] == hashlib.sha256(TINY.read_bytes()).hexdigest()


def test_processes_that_import_at_once_do_not_disturb_each_other(run_cli: Run, isolated: Path) -> None:
    running = [ForkedCommand("models", "import", TINY, "--name", "mine", "--json") for _ in range(2)]
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert sorted(process.returncode for process in running) == [0, 2]
    assert sum("error" in answer for answer in answers) == 1
    assert [path.name for path in (isolated / "models").iterdir()] == ["mine.safetensors"]
    assert run_cli("models", "show", "mine", "--json").json()["status"] == "available"
