"""`fommctl plugins` and commands of plugins, with distributions as an installer leaves them."""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from command_line import Result
from distributions import BROKEN, GOOD, install

from fommctl.host import Host
from fommctl.presets.preset import load_preset

Run = Callable[..., Result]

UNKEPT = """
    from functools import partial
    from types import SimpleNamespace
    from fommctl.api import ClipRecord, DatasetSpec, hookimpl

    def divided(root):
        return 1 / 0

    def adapter(clips):
        return SimpleNamespace(clips=clips)

    @hookimpl
    def fommctl_datasets():
        clip = ClipRecord(name="c", identity="i", frames=list)
        for name, clips in (("empty", lambda root: []), ("twice", lambda root: [clip, clip]), ("raises", divided)):
            yield DatasetSpec(name=name, summary="s", licence="l", build=partial(adapter, clips))
"""
CARELESS = """
    from fommctl.api import DatasetSpec, hookimpl

    @hookimpl
    def fommctl_datasets():
        import av

        yield DatasetSpec(name="mute", summary=" ", licence="l", build=list)
        yield DatasetSpec(name="chatty", summary="one" + chr(10) + "two", licence="l", build=list)
"""
DISPUTED = """
    from fommctl.api import CommandSpec, hookimpl

    @hookimpl
    def fommctl_commands():
        yield CommandSpec(name="{name}", summary="s", build=list)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a working and a broken third-party plugin."""
    install(tmp_path / "site", GOOD)
    return install(tmp_path / "site", BROKEN, name="broken-plugin", entry="broken", version="0.3")


WARNING = (
    "warning: plugin 'broken' (broken_plugin) of broken-plugin: "
    "does not load: ModuleNotFoundError: No module named 'no_such_library'\n"
)


def test_help_and_every_command_work_beside_a_broken_plugin(site: Path, run_beside: Run) -> None:
    for arguments in (["--help"], ["plugins", "list"], ["plugins", "show", "good"]):
        result = run_beside(*arguments, path=site)
        assert (result.code, result.stderr) == (0, WARNING)
    assert "Greets you" in run_beside("--help", path=site).stdout


def test_list_says_what_each_registers_and_what_is_broken(site: Path, run_beside: Run) -> None:
    result = run_beside("plugins", "list", "--json", path=site)
    data = result.json()
    rows = {row["name"]: row for row in data["plugins"]}
    assert {"faces", "fomm", "synthetic", "good", "broken"} <= set(rows)
    assert rows["good"] == {
        "name": "good",
        "distribution": "good-plugin",
        "version": "1.2",
        "entry_point": "good_plugin",
        "requires": "<3,>=2",
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
        "requires": "<3,>=2",
        "registers": {},
        "problem": "does not load: ModuleNotFoundError: No module named 'no_such_library'",
    }
    (warning,) = data["warnings"]
    assert warning.startswith("plugin 'broken' (broken_plugin) of broken-plugin: does not load")
    text = run_beside("plugins", "list", path=site, COLUMNS="120").stdout
    assert "dataset: ramp" in text
    assert "broken: does not load: ModuleNotFoundError" in text


def test_show(site: Path, run_beside: Run) -> None:
    (good,) = run_beside("plugins", "show", "good-plugin", "--json", path=site).json()["plugins"]
    assert good["summaries"] == {
        "dataset": {"ramp": "A grey ramp"},
        "metric": {"mean-difference": "Mean difference"},
        "command": {"hello": "Greets you"},
    }
    broken = run_beside("plugins", "show", "broken", path=site)
    assert "Traceback (most recent call last)" in broken.stdout
    assert "import no_such_library" in broken.stdout
    missing = run_beside("plugins", "show", "nonesuch", "--json", path=site)
    assert missing.code == 2
    assert missing.json()["error"]["message"] == "no plugin 'nonesuch' is loaded"
    near = run_beside("plugins", "show", "god", "--json", path=site).json()["error"]["message"]
    assert near == "no plugin 'god' is loaded (did you mean 'good'?)"


def test_check(tmp_path: Path, site: Path, run_beside: Run) -> None:
    result = run_beside("plugins", "check", "good", path=site)
    assert result.code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "plugin loading: passed",
        "plugin requirement: passed: fommctl<3,>=2",
        "plugin summaries: passed",
    ]
    assert re.fullmatch(
        r"plugin import: passed: \S+ ms of every command(, slow)?; it loads numpy, which can wait for build", lines[3]
    )
    assert lines[4:] == [
        "dataset ramp: passed",
        "metric mean-difference: passed",
        "command hello: passed",
        "7 checks, 0 failed",
    ]


def failed(result: Result) -> dict[str, dict[str, Any]]:
    """Return the failed checks of `plugins check --json` by name, without empty values."""
    assert result.code == 6, result.stderr
    checks = [check for check in result.json()["checks"] if check["problem"]]
    return {check["name"]: {key: value for key, value in check.items() if value is not None} for check in checks}


def test_check_explains_broken_promises(tmp_path: Path, run_beside: Run) -> None:
    path = install(tmp_path, UNKEPT)
    checks = failed(run_beside("plugins", "check", "good", "--json", path=path))
    assert checks["empty"] == {
        "kind": "dataset",
        "name": "empty",
        "problem": "requirement not met: there are clips",
        "read": "fommctl_datasets",
        "repeat": "fommctl.api.testing.check_dataset",
    }
    assert checks["twice"]["problem"] == "requirement not met: names are unique among the clips of an identity"
    assert checks["twice"]["got"] == "('i', 'c')"
    assert checks["raises"]["problem"] == "ZeroDivisionError: division by zero"
    assert checks["raises"]["where"] == f"{tmp_path / 'good_plugin.py'}:7, in divided"
    assert checks["raises"]["traceback"].startswith("Traceback (most recent call last)")
    text = run_beside("plugins", "check", "good", path=path).stdout
    guide = Path(__file__).parents[2] / "plugins" / "README.md"
    assert f"    got: ('i', 'c')\n    read: 'fommctl_datasets' in {guide}\n" in text
    assert "Traceback" not in text
    assert "-v shows the tracebacks" in text
    for flag in ("-v", "--debug"):
        assert "Traceback" in run_beside("plugins", "check", "good", flag, path=path).stdout


def test_check_looks_at_the_plugin_itself(tmp_path: Path, run_beside: Run) -> None:
    install(tmp_path, CARELESS, name="careless-plugin", entry="careless", requires=None)
    checks = failed(run_beside("plugins", "check", "careless", "--json", path=tmp_path))
    assert set(checks) == {"requirement", "summaries", "import", "mute", "chatty"}
    assert checks["requirement"]["advice"] == 'Write "fommctl>=2,<3" among the dependencies of careless-plugin.'
    assert (
        checks["summaries"]["problem"]
        == "the dataset 'mute' has no summary; the summary of the dataset 'chatty' has 2 lines"
    )
    assert checks["import"]["problem"].startswith("importing it, or calling its hooks, loads av (")


@pytest.mark.parametrize(
    ("source", "problem", "read"),
    [
        (BROKEN, "does not load: ModuleNotFoundError: No module named 'no_such_library'", "Troubleshooting"),
        (UNKEPT.replace("fommctl_datasets", "fommctl_dataset"), "unknown hook fommctl_dataset (did", "Troubleshooting"),
    ],
)
def test_check_of_what_does_not_load(tmp_path: Path, run_beside: Run, source: str, problem: str, read: str) -> None:
    install(tmp_path, source)
    result = run_beside("plugins", "check", "good", "--json", path=tmp_path)
    checks = failed(result)
    assert list(checks) == ["loading"]
    assert checks["loading"]["problem"].startswith(problem)
    assert checks["loading"]["read"] == read
    assert [problem in each for each in result.json()["problems"]] == [True]


def test_a_plugin_that_ends_the_process(tmp_path: Path, run_process: Run) -> None:
    ends = "import os, sys\nif sys.argv[0] == '-c':\n    os._exit(0)"
    checks = failed(run_process("plugins", "check", "good", "--json", path=install(tmp_path, ends)))
    assert checks["import"]["problem"] == "importing it in a new process fails: it ends the process"


def test_a_command_of_a_plugin(site: Path, run_beside: Run) -> None:
    good = {"path": site, "FOMMCTL_PLUGINS": "good"}
    assert run_beside("hello", "--name", "Ann", **good) == Result(0, "hello Ann\n", "")
    usage = run_beside("hello", "--help", **good)
    assert "Usage: fommctl hello [OPTIONS]" in usage.stdout
    assert "--install-completion" not in usage.stdout
    failed = run_beside("hello", "--fail", **good)
    assert (failed.code, failed.stdout) == (1, "")
    assert failed.stderr.startswith(
        "error: plugin 'good' (good_plugin) of good-plugin failed: RuntimeError: no greeting today\n"
        "hint: Leave the plugin out with FOMMCTL_PLUGINS, or report it to its authors with the log "
    )
    gone = run_beside("hello", path=site, FOMMCTL_PLUGINS="")
    assert (gone.code, gone.stderr.splitlines()[0]) == (2, "error: no such command 'hello'")


def test_a_command_that_cannot_be_built(tmp_path: Path, run_beside: Run) -> None:
    path = install(tmp_path, DISPUTED.format(name="odd").replace("list", "lambda: 1 / 0"))
    result = run_beside("odd", path=path)
    assert result.code == 1
    assert result.stderr.startswith(
        "error: the command 'odd' of plugin 'good' (good_plugin) of good-plugin cannot be built: ZeroDivisionError"
    )


def test_names_in_dispute(tmp_path: Path, run_beside: Run) -> None:
    for name in ("one", "other"):
        install(tmp_path, DISPUTED.format(name="twice"), name=f"{name}-plugin", entry=name)
    message = (
        "there is more than one command 'twice': plugin 'one' (one_plugin) of one-plugin "
        "and plugin 'other' (other_plugin) of other-plugin"
    )
    listed = run_beside("plugins", "list", "--json", path=tmp_path)
    assert (listed.code, listed.json()["warnings"]) == (0, [message])
    assert run_beside("--help", path=tmp_path).code == 0
    for arguments in (["twice"], ["presets", "list"]):
        result = run_beside(*arguments, path=tmp_path)
        assert (result.code, result.stderr.splitlines()[0]) == (2, f"error: {message}")
    chosen = run_beside("presets", "list", path=tmp_path, FOMMCTL_PLUGINS="fomm,one")
    assert chosen.code == 0


def test_a_plugin_cannot_take_the_place_of_a_command_of_ours(tmp_path: Path, run_beside: Run) -> None:
    path = install(tmp_path, DISPUTED.format(name="plugins"))
    result = run_beside("--help", path=path)
    assert result.stderr == (
        "warning: skipping the command 'plugins' of plugin 'good' (good_plugin) of good-plugin: "
        "fommctl has a command of this name\n"
    )
    assert run_beside("plugins", "list", "--json", path=path).code == 0


def test_a_plugin_that_is_not_installed(tmp_path: Path, run_process: Run) -> None:
    project = tmp_path / "own"
    (project / "src" / "own_sets").mkdir(parents=True)
    (project / "src" / "own_sets" / "__init__.py").write_text(dedent(DISPUTED.format(name="own")), encoding="utf-8")
    text = '[project]\nname = "own-sets"\nversion = "1.5"\ndependencies = ["fommctl>=2,<3"]\n'
    (project / "pyproject.toml").write_text(f'{text}[project.entry-points.fommctl]\nown = "own_sets"\n', "utf-8")
    (shown,) = run_process("--plugin", project, "plugins", "show", "own", "--json").json()["plugins"]
    assert (shown["distribution"], shown["requires"], shown["problem"]) == ("own-sets", "<3,>=2", None)
    assert re.fullmatch(r"1\.5\+[0-9a-f]{12}", shown["version"])
    package = project / "src" / "own_sets"
    (module,) = run_process("--plugin", package, "plugins", "show", "own_sets", "--json").json()["plugins"]
    assert module["registers"] == shown["registers"] == {"command": ["own"]}
    wrong = run_process("--plugin", tmp_path, "plugins", "list")
    assert (wrong.code, wrong.stderr.splitlines()[0]) == (2, f"error: {tmp_path} is not a plugin")


GREEDY = """
    from dataclasses import replace
    from pathlib import Path

    import fommctl_fomm
    from fommctl.api import PresetSpec, hookimpl


    @hookimpl
    def fommctl_backends():
        fomm = next(fommctl_fomm.fommctl_backends())
        yield replace(fomm, name="greedy", recognises=lambda params: float(bool(params)))


    @hookimpl
    def fommctl_presets():
        yield PresetSpec(name="greedy", summary="s", path=Path(__file__).with_name("greedy.yaml"))
"""


def test_check_finds_a_backend_that_claims_others_presets(tmp_path: Path, run_beside: Run, host: Host) -> None:
    install(tmp_path, GREEDY)
    text = load_preset("smoke", host).text().replace("backend: fomm", "backend: greedy")
    (tmp_path / "greedy.yaml").write_text(text.replace("name: smoke", "name: greedy"), encoding="utf-8")
    checks = failed(run_beside("plugins", "check", "good", "--json", path=tmp_path))
    assert list(checks) == ["greedy"]
    assert checks["greedy"]["problem"].startswith("requirement not met: recognises() is less sure of ")
