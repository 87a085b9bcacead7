"""`fommctl plugins` and the commands of plugins, with distributions as an installer leaves them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from distributions import BROKEN, GOOD, install

Run = Callable[..., Result]

UNKEPT = """
    from types import SimpleNamespace
    from fommctl.api import DatasetSpec, hookimpl

    @hookimpl
    def fommctl_datasets():
        yield DatasetSpec(
            name="empty", summary="s", licence="l", build=lambda: SimpleNamespace(clips=lambda root: iter([]))
        )
"""
DISPUTED = """
    from fommctl.api import CommandSpec, hookimpl

    @hookimpl
    def fommctl_commands():
        yield CommandSpec(name="{name}", summary="s", build=list)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a good and a broken third-party plugin."""
    install(tmp_path / "site", GOOD)
    return install(tmp_path / "site", BROKEN, name="broken-plugin", entry="broken", version="0.3")


WARNING = (
    "warning: plugin 'broken' (broken_plugin) of broken-plugin: "
    "does not load: ModuleNotFoundError: No module named 'no_such_library'\n"
)


def test_help_and_every_command_work_beside_a_broken_plugin(site: Path, run_process: Run) -> None:
    for arguments in (["--help"], ["plugins", "list"], ["plugins", "show", "good"]):
        result = run_process(*arguments, path=site)
        assert (result.code, result.stderr) == (0, WARNING)
    assert "Greets you" in run_process("--help", path=site).stdout


def test_list_says_what_each_registers_and_what_is_broken(site: Path, run_process: Run) -> None:
    result = run_process("plugins", "list", "--json", path=site)
    data = result.json()
    rows = {row["name"]: row for row in data["plugins"]}
    assert {"faces", "fomm", "synthetic", "good", "broken"} <= set(rows)
    assert rows["good"] == {
        "name": "good",
        "distribution": "good-plugin",
        "version": "1.2",
        "entry_point": "good_plugin",
        "api": "1.0",
        "registers": {
            "dataset": ["ramp"],
            "metric": ["mean-difference"],
            "command": ["hello"],
            "hook": ["fommctl_frame"],
        },
        "problem": None,
    }
    assert rows["broken"] == {
        "name": "broken",
        "distribution": "broken-plugin",
        "version": "0.3",
        "entry_point": "broken_plugin",
        "api": None,
        "registers": {},
        "problem": "does not load: ModuleNotFoundError: No module named 'no_such_library'",
    }
    assert data["warnings"] == []
    text = run_process("plugins", "list", path=site, COLUMNS="120").stdout
    assert "dataset: ramp" in text
    assert "broken: does not load: ModuleNotFoundError" in text


def test_show(site: Path, run_process: Run) -> None:
    (good,) = run_process("plugins", "show", "good-plugin", "--json", path=site).json()["plugins"]
    assert good["summaries"] == {
        "dataset": {"ramp": "A grey ramp"},
        "metric": {"mean-difference": "Mean difference"},
        "command": {"hello": "Greets you"},
    }
    broken = run_process("plugins", "show", "broken", path=site)
    assert "Traceback (most recent call last)" in broken.stdout
    assert "import no_such_library" in broken.stdout
    missing = run_process("plugins", "show", "nonesuch", "--json", path=site)
    assert missing.code == 2
    assert missing.json()["error"]["message"] == "no plugin 'nonesuch' is loaded"


def test_check(tmp_path: Path, site: Path, run_process: Run) -> None:
    result = run_process("plugins", "check", "good", path=site)
    assert (result.code, result.stdout) == (
        0,
        "dataset ramp: passed\nmetric mean-difference: passed\ncommand hello: passed\n",
    )
    install(site, UNKEPT, name="unkept-plugin", entry="unkept")
    failed = run_process("plugins", "check", "unkept", "--json", path=site)
    assert failed.code == 6
    assert failed.json()["checks"] == [
        {"kind": "dataset", "name": "empty", "problem": "broken promise: there are clips", "note": None}
    ]
    assert run_process("plugins", "check", "broken", path=site).code == 6


def test_a_command_of_a_plugin(site: Path, run_process: Run) -> None:
    good = {"path": site, "FOMMCTL_PLUGINS": "good"}
    assert run_process("hello", "--name", "Ann", **good) == Result(0, "hello Ann\n", "")
    usage = run_process("hello", "--help", **good)
    assert "Usage: fommctl hello [OPTIONS]" in usage.stdout
    assert "--install-completion" not in usage.stdout
    failed = run_process("hello", "--fail", **good)
    assert (failed.code, failed.stdout) == (1, "")
    assert "RuntimeError: no greeting today" in failed.stderr
    gone = run_process("hello", path=site, FOMMCTL_PLUGINS="")
    assert (gone.code, gone.stderr.splitlines()[0]) == (2, "error: no such command 'hello'")


def test_a_command_that_cannot_be_built(tmp_path: Path, run_process: Run) -> None:
    path = install(tmp_path, DISPUTED.format(name="odd").replace("list", "lambda: 1 / 0"))
    result = run_process("odd", path=path)
    assert result.code == 1
    assert result.stderr.startswith(
        "error: the command 'odd' of plugin 'good' (good_plugin) of good-plugin cannot be built: ZeroDivisionError"
    )


def test_names_in_dispute(tmp_path: Path, run_process: Run) -> None:
    for name in ("one", "other"):
        install(tmp_path, DISPUTED.format(name="twice"), name=f"{name}-plugin", entry=name)
    message = (
        "there is more than one command 'twice': plugin 'one' (one_plugin) of one-plugin "
        "and plugin 'other' (other_plugin) of other-plugin"
    )
    listed = run_process("plugins", "list", "--json", path=tmp_path)
    assert (listed.code, listed.json()["warnings"]) == (0, [message])
    assert run_process("--help", path=tmp_path).code == 0
    for arguments in (["twice"], ["presets", "list"]):
        result = run_process(*arguments, path=tmp_path)
        assert (result.code, result.stderr.splitlines()[0]) == (2, f"error: {message}")
    chosen = run_process("presets", "list", path=tmp_path, FOMMCTL_PLUGINS="fomm,one")
    assert chosen.code == 0


def test_a_plugin_cannot_take_the_place_of_a_command_of_ours(tmp_path: Path, run_process: Run) -> None:
    path = install(tmp_path, DISPUTED.format(name="plugins"))
    result = run_process("--help", path=path)
    assert result.stderr == (
        "warning: the command 'plugins' of plugin 'good' (good_plugin) of good-plugin is left out: "
        "fommctl has one of this name\n"
    )
    assert run_process("plugins", "list", "--json", path=path).code == 0
