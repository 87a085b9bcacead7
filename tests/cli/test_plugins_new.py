"""`fommctl plugins new`: what it writes and what it rejects."""

import ast
import os
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from fommctl.errors import UsageError
from fommctl.scaffold import KINDS, LONGEST, short_name

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written(here: Path, run_cli: Run, kind: str) -> None:
    result = run_cli("plugins", "new", "cats", "--kind", kind, "--json")
    assert result.code == 0, result.stderr
    told = result.json()
    folder = here / "fommctl-cats"
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert told["files"] == written
    assert {".gitignore", "README.md", "pyproject.toml", "src/fommctl_cats/py.typed"} < set(written)
    assert (told["name"], told["distribution"], told["module"]) == ("cats", "fommctl-cats", "fommctl_cats")
    data = " --data RAW" if kind == "dataset" else ""
    assert told["next"] == [
        "pip install -e 'fommctl-cats[dev]'",
        f"fommctl plugins check cats{data}",
        "pytest fommctl-cats",
    ]
    assert Path(told["guide"]).name == "README.md"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["fommctl"] == {"cats": "fommctl_cats"}
    assert "fommctl>=2,<3" in project["dependencies"]
    assert "\n\n\n" not in (folder / "README.md").read_text()
    text = (folder / "src" / "fommctl_cats" / "__init__.py").read_text()
    assert [node.module for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)].count("fommctl.api") == 1


def test_the_last_lines_say_what_comes_next(run_cli: Run) -> None:
    result = run_cli("plugins", "new", "cats", "--kind", "metric", "-o", "my plugins/cats")
    assert result.stdout.splitlines()[:4] == [
        "my plugins/cats contains the plugin 'cats', a working metric. Next:",
        "  pip install -e 'my plugins/cats[dev]'",
        "  fommctl plugins check cats",
        "  pytest 'my plugins/cats'",
    ]
    assert Path("my plugins/cats/pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("cats", "cats"),
        ("fommctl-cats", "cats"),
        ("Fommctl_Cats", "cats"),
        ("Cats.And__Dogs", "cats-and-dogs"),
        ("3d", "3d"),
        ("fommctl-fommctl-x", "fommctl-x"),
        ("a" * LONGEST, "a" * LONGEST),
    ],
)
def test_names(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("my cats", "my-cats"),
        ("../cats", "cats"),
        ("-cats", "cats"),
        ("cats_", "cats"),
        ("cats/dogs", "cats-dogs"),
        ("Kätzchen", "k-tzchen"),
        ("a" * 41, "a" * 40),
        ("", None),
        ("猫", None),
        ("fommctl", None),
        ("fommctl-", None),
        ("cats\n", "cats"),
    ],
)
def test_what_cannot_be_a_name(name: str, near: str | None) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a plugin") as caught:
        short_name(name)
    hint = str(caught.value.hint)
    assert hint.startswith(f"Did you mean {near!r}?" if near else "A name is of letters")


def test_another_plugin_of_the_name(here: Path, run_cli: Run, third_party: Callable[..., None]) -> None:
    third_party("", name="fommctl-Cats", entry="tabby", value="elsewhere")
    result = run_cli("plugins", "new", "cats", "--kind", "metric", "--json")
    assert result.json()["error"]["message"] == "the name 'cats' is taken: fommctl-cats 1.2 is installed"


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_kept(here: Path, run_cli: Run, make: Callable[[Path], None]) -> None:
    make(here / "fommctl-cats")
    result = run_cli("plugins", "new", "cats", "--kind", "dataset", "--json")
    assert (result.code, result.json()["error"]["message"]) == (2, "fommctl-cats already exists")
    assert [path.name for path in here.iterdir()] == ["fommctl-cats"]


def test_nothing_half_written(here: Path) -> None:
    """A limit on file sizes stops the README."""
    done = subprocess.run(
        [sys.executable, "-B", "-m", "fommctl", "plugins", "new", "cats", "--kind", "backend"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, "error: cannot write fommctl-cats: file too large")
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be(here: Path, run_cli: Run) -> None:
    (here / "file").touch()
    result = run_cli("plugins", "new", "cats", "--kind", "dataset", "-o", "file/cats", "--json")
    assert (result.code, result.json()["error"]["message"]) == (3, "cannot write file/cats: not a directory")


@pytest.fixture
def packages(here: Path, run_cli: Run) -> list[Path]:
    """Write a package of each kind, with the longest possible name."""
    for kind in KINDS:
        assert run_cli("plugins", "new", f"{kind:x<{LONGEST}}", "--kind", kind, "-o", kind).code == 0
    return [here / kind for kind in KINDS]


def test_ruff_has_nothing_to_say(packages: list[Path]) -> None:
    for arguments in (["check"], ["format", "--diff"]):
        command = [sys.executable, "-m", "ruff", *arguments, *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_has_nothing_to_say(packages: list[Path], tmp_path: Path) -> None:
    # Strict, like the packages themselves; with the cache about torch that `make lint` may have left.
    known = ROOT / ".mypy_cache"
    if known.is_dir():
        shutil.copytree(known, tmp_path / "cache")
    tests = [(each / "tests" / "test_plugin.py").rename(each / "tests" / f"test_{each.name}.py") for each in packages]
    sources = [each / "src" for each in packages]
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *sources, *tests],
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
