"""A full disk or quota: exit code 3, the reason, nothing half-written, and existing files stay."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import Result
from evaluation_data import square_clip
from fault_scenarios import (
    PRESET,
    TINY,
    Inputs,
    animate,
    batch,
    crop,
    preprocess,
    scenarios,
    train,
    write_jobs,
)
from faults import Undisturbed, environment, isolated_mounts, run, tree
from media_factory import write_frames

MOVIES = ("mp4", "mov", "mkv", "webm", "gif")
NAMES = (*MOVIES, "pictures", "crop", "crop-workers", "preprocess", "preprocess-workers", "train", "import", "export")
NAMES = (*NAMES, "evaluate", "batch", "batch-workers", "batch-status")
SAMPLE = ("mkv", "preprocess")
"""Sample in `make test`."""
OVERWRITTEN = b"of an earlier run"
LITTLE = 1000
"""Limit in bytes; what every command writes is longer."""


@dataclass(frozen=True)
class Case:
    """A command that fills a folder."""

    words: list[str | Path]
    room: int = LITTLE
    """Largest file size in bytes."""
    before: Callable[[], object] = lambda: None
    """Function that fills the folder while there is room."""
    stays: tuple[str, ...] = ()
    """Patterns of files that must not change or disappear."""
    grows: tuple[str, ...] = ()
    """Patterns of files that may be there afterwards, complete."""
    home: dict[str, str] = field(default_factory=dict)


def case(name: str, inputs: Inputs, out: Path) -> Case:
    """Return the case of this name, whose command writes to the folder `out`."""
    site, home = inputs.site, {"FOMMCTL_HOME": str(out)}
    kind, _, more = name.partition("-")
    workers = 2 if more else 1
    if kind in MOVIES:
        target = out / f"out.{kind}"
        return Case(animate(inputs, target), before=lambda: target.write_bytes(OVERWRITTEN), stays=("out.*",))
    if kind == "pictures":
        return Case(animate(inputs, out / "frames" / "%03d.png"), room=200)
    if kind == "crop":
        first = [*crop(inputs, out, workers)]
        first[1] = inputs.raw / "0.mp4"
        # The journal, which is smaller, has to grow.
        return Case(
            crop(inputs, out, workers),
            room=2500,
            before=lambda: check(run(*first, site=site)),
            stays=("0#track0.mp4",),
            grows=("manifest.*", ".crop.jsonl"),
        )
    if kind == "preprocess":
        first = preprocess(inputs, out, "--limit", "1")
        return Case(
            preprocess(inputs, out, workers=workers),
            before=lambda: check(run(*first, site=site)),
            stays=("manifest.jsonl", "*/person*"),
        )
    if kind == "train":
        return Case(
            train(inputs, out),
            # One of the two curves and the metrics fit, a checkpoint does not.
            room=150_000,
            before=lambda: check(run(*train(inputs, out), "--max-steps", "2")),
            stays=("checkpoints/*", "preset.yaml", "pictures/*"),
            grows=("metrics.jsonl", "tensorboard/*", "pictures/*"),
        )
    if kind == "batch":
        room = 100_000 if more == "status" else LITTLE

        def before() -> None:
            write_jobs(inputs, out)
            if more == "status":
                # No line fits, while results would.
                (out / "status.jsonl").write_bytes(b"\n" * (room - 50))

        words = batch(out, workers if more == "workers" else 0)
        return Case(words, room, before, stays=("jobs.jsonl",), grows=("status.jsonl", ".fommctl-batch/*"))
    model = ["models", "import", TINY[1], "--preset", PRESET, "--name", "mine", "--overwrite", "-q"]
    if kind == "import":
        return Case(
            model, before=lambda: check(run(*model, **home)), stays=("models/*",), grows=("locks/*",), home=home
        )
    if kind == "export":
        target = out / "tiny.pth.tar"
        words = ["models", "export", TINY[1], "--preset", PRESET, "-o", target, "--overwrite", "-q"]
        return Case(words, before=lambda: target.write_bytes(OVERWRITTEN), stays=("*.tar",))
    assert kind == "evaluate"
    for number, folder in enumerate(("truth", "pred")):
        if not (inputs.portrait.parent / folder).exists():
            write_frames(inputs.portrait.parent / folder / "ann#1", square_clip(60, number), "%07d.png")
    words = ["evaluate", "--pred", inputs.portrait.parent / "pred", "--truth", inputs.portrait.parent / "truth"]
    words += ["--metrics", "l1.strict", "-o", out / "scores", "--workers", "0", "--no-videos", "-q"]
    return Case(words, room=100, grows=("*",))


def check(result) -> None:
    assert result.code == 0, result.stderr


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", NAMES if full else SAMPLE)
    if "filled" in metafunc.fixturenames:
        metafunc.parametrize("filled", FILLED if full else FILLED[:1], ids="{0[0]}, {0[1]} bytes left".format)


def assert_told(code: int, stderr: str) -> None:
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (3, 1), stderr
    assert errors[0].startswith("error: the disk is full"), stderr
    assert "hint: " in stderr
    assert "Traceback" not in stderr


def assert_left(found: dict[str, str], before: dict[str, str], own: Case) -> None:
    """Assert that files that must stay are unchanged, and that there are only permitted ones besides."""
    for name, content in before.items():
        if any(Path(name).match(pattern) for pattern in own.stays):
            assert found.get(name) == content, name
    new = [name for name in found if name not in before]
    assert [name for name in new if not any(Path(name).match(pattern) for pattern in own.grows)] == []
    assert [name for name in found if ".tmp" in name or ".part" in name or ".work" in name] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_files_that_may_not_grow(name: str, inputs: Inputs, run_beside: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    own = case(name, inputs, out)
    own.before()
    before = tree(out, everything=True)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (own.room, own.room))  # noqa: E731
    result = run(*own.words, site=inputs.site, limit=limit, **own.home)
    assert_told(result.code, result.stderr)
    assert_left(tree(out, everything=True), before, own)
    # With enough room, the same command succeeds.
    check(run_beside(*own.words, path=inputs.site, **own.home))


SIZE = 32 * 2**20
SMALL_DISK = """
mount -t tmpfs -o size=$1 faults "$2" || exit 99
mkdir "$2/out" && head -c "$3" /dev/zero > "$2/fill"
disk=$2 copies=$4; shift 4
"$@"; code=$?
cp -a "$disk/out" "$copies/full" && rm "$disk/fill" && "$@" && cp -a "$disk/out" "$copies/free"
exit $code
"""
"""Runs a command twice, first on a file system that is full except for a few bytes, and copies its output."""


FILLED = [("crop", 12_288), ("animate", 0), ("animate", 12_288), ("pictures", 60_000), ("crop", 0), ("preprocess", 0)]
FILLED += [("preprocess-workers", 12_288), ("preprocess", 8_192), ("train", 0), ("train", 12_288), ("train", 700_000)]


@pytest.mark.slow
def test_a_small_file_system(
    filled: tuple[str, int], inputs: Inputs, whole: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    mounts = isolated_mounts()
    if not mounts:
        pytest.skip("this system allows no file systems of one's own")
    name, left = filled
    scenario = scenarios(inputs)[name]
    disk, copies = tmp_path / "disk", tmp_path / "copies"
    disk.mkdir()
    copies.mkdir()
    words = [sys.executable, "-m", "fommctl", *map(str, scenario.words(disk / "out"))]
    done = subprocess.run(
        [*mounts, SMALL_DISK, "sh", str(SIZE), str(disk), str(SIZE - left), str(copies), *words],
        env=environment(inputs.site), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_told(done.returncode, done.stderr)
    scenario.check_killed(copies / "full", whole(name).out)
    assert [name for name in tree(copies / "full", everything=True) if ".tmp" in name or ".work" in name] == []
    scenario.check_complete(copies / "free", whole(name).out)
