"""A plugin of each kind as written by `plugins new`, installed into a fresh environment and used; the first steps of
plugins/README.md are those of the data set."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from media_factory import moving_square, write_gif

GUIDE = Path(__file__).parents[2] / "plugins" / "README.md"
PLUGINS = {"cats": "dataset", "pull": "backend", "stands-out": "detector", "edges": "metric"}
FRAMES = 6
QUICK = ("--device", "cpu", "--precision", "fp32")


SERVE = """
import contextlib, io, json, sys
from fommctl.cli.main import main
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = main(json.loads(line))
    print(json.dumps([code, stdout.getvalue(), stderr.getvalue()]), flush=True)
"""
"""A program that runs the commands on its stdin, one per line."""


class Environment:
    """A virtual environment that sees the packages of this one, with plugins of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        paths = sysconfig.get_paths(vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
        outer = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        # Like site.main(), this reads the .pth files there, one of which leads to fommctl itself.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(outer)]
        (Path(paths["purelib"]) / "outer.pth").write_text("".join(lines))

    def install(self, *packages: str) -> None:
        """Run `pip install -e` as an author does, without the network."""
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
        editable = [word for package in packages for word in ("-e", package)]
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", *offline, *editable]
        done = subprocess.run(pip, capture_output=True, text=True, check=False, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *arguments: str | Path) -> str:
        """Run `python -m ARGUMENTS` in the environment and return its output."""
        command = [self.python, "-m", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def fommctl(self) -> Iterator[Callable[..., Any]]:
        """Yield a function that runs `fommctl ARGUMENTS --json` in the environment, always in the same process."""
        serving = subprocess.Popen(
            [self.python, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert serving.stdin is not None
        assert serving.stdout is not None
        requests, answers = serving.stdin, serving.stdout

        def run(*arguments: object) -> Any:
            print(json.dumps([*map(str, arguments), "--json"]), file=requests, flush=True)
            code, stdout, stderr = json.loads(answers.readline())
            assert code == 0, stdout + stderr
            return json.loads(stdout)

        with serving:
            yield run


def write_raw(root: Path) -> Path:
    """Write two training clips and a test clip, each of a different person."""
    for index, name in enumerate(("ann", "bob", "cat")):
        (root / name).mkdir(parents=True)
        frames = [moving_square(4 * index + step, 64, 64) for step in range(FRAMES)]
        write_gif(root / name / "walk.gif", frames, [40] * FRAMES)
    (root / "test.txt").write_text("cat\n")
    return root


def first_steps() -> list[list[str]]:
    """Return the commands at the beginning of the guide."""
    (block,) = re.findall(r"^## First steps\n+```sh\n(.+?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    return [shlex.split(line) for line in block.splitlines()]


@pytest.mark.slow
def test_one_of_each_kind(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    raw = write_raw(tmp_path / "RAW")
    others = {name: kind for name, kind in PLUGINS.items() if name != "cats"}
    packages = [f"fommctl-{name}" for name in PLUGINS]
    done = []
    for program, *arguments in first_steps():
        if program == "fommctl":
            environment.run("fommctl", *arguments)
        elif program == "pip":
            with environment.fommctl() as fommctl:
                for name, kind in others.items():
                    fommctl("plugins", "new", name, "--kind", kind)
            environment.install(arguments[-1], *packages[1:])
        else:
            tests = ["pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *packages]
            assert re.search(r"^\d+ passed", environment.run(*tests), re.MULTILINE)
        done.append((program, arguments[0]))
    assert done[1] == ("pip", "install")
    assert done[-1] == ("pytest", "fommctl-cats")
    with environment.fommctl() as fommctl:
        check_they_are_seen(fommctl)
        # The tests of the other packages include the same checks.
        checks = fommctl("plugins", "check", "pull")["checks"]
        notes = [check["note"] for check in checks if check["kind"] == "backend"]
        assert notes == ["passed with the preset pull in fp32 and bf16"]
        check_they_work_together(fommctl, raw, tmp_path / "data")


def check_they_are_seen(fommctl: Callable[..., Any]) -> None:
    rows = {row["name"]: row for row in fommctl("plugins", "list")["plugins"]}
    for name, kind in PLUGINS.items():
        row = rows[name]
        assert (row["distribution"], row["version"], row["requires"]) == (f"fommctl-{name}", "0.1.0", "<3,>=2")
        assert row["problem"] is None
        assert row["registers"] == {kind: [name], **({"preset": [name]} if kind == "backend" else {})}


def check_they_work_together(fommctl: Callable[..., Any], raw: Path, data: Path) -> None:
    prepared = fommctl("preprocess", "cats", raw, "-o", "data", "--size", 64, "--format", "png", "--workers", 0)
    assert (prepared["written"], prepared["failed"]) == (3, [])
    names = sorted(path.relative_to(data).as_posix() for path in data.glob("t*/*"))
    assert names == ["test/cat#walk", "train/ann#walk", "train/bob#walk"]
    trained = fommctl(
        "train", "--preset", "pull", "--data", "data", "--out", "run", "--max-steps", 2,
        "--set", "train_params.batch_size=2", "--workers", 0, "--pictures-every", 0, *QUICK,
    )  # fmt: skip
    assert (trained["steps"], list(trained["losses"])) == (2, ["pixel", "equivariance"])
    shot = fommctl(
        "animate", raw / "ann" / "walk.gif", raw / "cat" / "walk.gif", "-o", "shot.mkv", "--model", trained["model"],
        "--crop", "none", *QUICK,
    )  # fmt: skip
    assert (shot["frames"], shot["width"], shot["height"], shot["preset"]) == (FRAMES, 64, 64, "pull")
    scores = fommctl(
        "evaluate", "--model", trained["model"], "--data", "data", "--metrics", "edges,akd", "--keypoints",
        "stands-out", "-o", "scores", "--workers", 0, "--no-videos", "--device", "cpu",
    )  # fmt: skip
    assert scores["clips"] == 1
    assert scores["metrics"]["edges"]["frames"] == FRAMES
    assert 0 < scores["metrics"]["edges"]["mean"] < 255
    assert scores["metrics"]["akd.strict"]["frames"] == FRAMES, "the detector found the square in every frame"
