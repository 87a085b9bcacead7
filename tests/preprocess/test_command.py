"""`fommctl preprocess`: files, messages, and continuing where it stopped."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import raw_clips
from command_line import environment
from interlaced import FRAMES, interlaced
from media_factory import write_clip
from PIL import Image
from raw_clips import grey, write_plan
from written_media import frames, track

from fommctl.host import load_host

PNG = ("--format", "png", "--size", "16")
INSIDE = ("--workers", "0")


@pytest.fixture
def planned(third_party):
    """Install the data set `planned`."""
    third_party(raw_clips.PLUGIN, name="fommctl-planned", entry="planned")


MARKER = ".fommctl-preprocess"


def manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, str]:
    """Return the hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def test_made_frames_come_back_exactly_from_pictures(run_cli, tmp_path):
    result = run_cli(
        "preprocess", "synthetic", "-o", tmp_path / "out", *PNG[:2], "--size", "64", "--limit", "3", "--json"
    )
    assert result.code == 0, result.stderr
    records = {
        (record.identity, record.name): record for record in load_host().datasets["synthetic"].build().clips(tmp_path)
    }
    lines = manifest(tmp_path / "out")
    assert len(lines) == 3
    for line in lines:
        truth = list(records[line["identity"], line["name"]].frames())
        written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / line["file"]).iterdir())]
        np.testing.assert_array_equal(written, truth)
        assert line["frames"] == len(truth)
        assert line["source"] is None
    assert result.json()["splits"]["train"]["clips"] + result.json()["splits"]["test"]["clips"] == 3


def test_the_manifest_says_what_was_done(run_cli, tmp_path, planned):
    raw = write_plan(
        tmp_path / "raw",
        [
            {"identity": "Ada", "name": "talk#1", "path": "a.mp4", "start": 0.2, "end": 0.6, "box": [4, 4, 40, 40]},
            {"identity": "Ada", "name": "talk#2", "path": "a.mp4", "split": "test"},
            grey("Bob", "grey", split="train"),
        ],
    )
    write_clip(raw / "a.mp4", frames=20, audio=("aac",))
    out = tmp_path / "deep/out"
    result = run_cli("preprocess", "planned", raw, "-o", out, "--preset", "smoke", "--json")
    assert result.code == 0, result.stderr
    lines = manifest(out)
    assert [line["file"] for line in lines] == [
        "test/Ada#talk#1.mp4", "test/Ada#talk#2.mp4", "train/Bob#grey.mp4",
    ]  # fmt: skip
    for line in lines:
        path = out / line["file"]
        assert (line["bytes"], line["sha256"]) == (path.stat().st_size, sha256(path.read_bytes()).hexdigest())
        assert len(frames(path)) == line["frames"]
        assert frames(path)[0].shape == (64, 64, 3)
    first = lines[0]
    told = {
        "identity": "Ada", "name": "talk#1", "split": "test", "frames": 10, "rate": "25/1", "source": "a.mp4",
        "start": 0.2, "end": 0.6, "box": [4, 4, 40, 40], "dataset": "planned",
    }  # fmt: skip
    assert {**first, **told} == first
    assert track(out / first["file"], "audio").codec == "aac"
    assert result.json() == {
        "dataset": "planned",
        "output": str(out),
        "manifest": str(out / "manifest.jsonl"),
        "written": 3,
        "kept": 0,
        "failed": [],
        "splits": {
            "train": {"clips": 1, "identities": 1, "frames": 4, "hours": 0.000044, "failed": 0},
            "test": {"clips": 2, "identities": 1, "frames": 30, "hours": 0.000333, "failed": 0},
        },
        "warnings": [],
    }
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "manifest.jsonl", "test", "train"]


def test_a_second_run_makes_only_what_is_missing_or_changed(run_cli, tmp_path, planned):
    clips = [grey(f"p{index}", "c", shade=10 * index) for index in range(6)]
    raw, out = write_plan(tmp_path / "raw", clips), tmp_path / "out"

    def run(*more):
        result = run_cli("preprocess", "planned", raw, "-o", out, *PNG, *INSIDE, "--json", *more)
        assert result.code == 0, result.stderr
        return result.json()["written"], result.json()["kept"]

    assert run("--limit", "4") == (4, 0)
    assert run() == (2, 4)
    before = tree(out)
    assert run() == (0, 6)
    assert tree(out) == before
    next((out / "train").glob("p*/0000001.png")).unlink()
    shutil.rmtree(next((out / "test").iterdir()))
    assert run() == (2, 4)
    assert tree(out) == before
    # One byte differs, the size does not: only hashes notice.
    picture = next((out / "train").glob("p*/0000002.png"))
    data = bytearray(picture.read_bytes())
    data[-20] ^= 1
    picture.write_bytes(data)
    assert run() == (0, 6)
    assert run("--verify") == (1, 5)
    assert tree(out) == before
    clips[2]["end"] = 0.08
    write_plan(raw, clips)
    assert run() == (1, 5)
    assert {line["identity"]: line["frames"] for line in manifest(out)} == {
        **dict.fromkeys(["p0", "p1", "p3", "p4", "p5"], 4),
        "p2": 2,
    }
    assert run("--size", "8") == (6, 0)
    # The other format replaces the first one.
    assert run("--format", "mp4") == (6, 0)
    assert all(path.suffix == ".mp4" for split in ("train", "test") for path in (out / split).iterdir())
    assert len(manifest(out)) == 6


def test_another_split_only_renames(run_cli, tmp_path, planned):
    clips = [grey(f"p{index}", "c") for index in range(8)]
    raw, out = write_plan(tmp_path / "raw", clips), tmp_path / "out"
    run = lambda *more: run_cli("preprocess", "planned", raw, "-o", out, *PNG, *INSIDE, "--json", *more).json()  # noqa: E731
    run()
    (tested,) = (out / "test").iterdir()
    made = {line["identity"]: line["sha256"] for line in manifest(out)}
    again = run("--seed", "3", "--test-fraction", "0.5")
    assert (again["written"], again["kept"]) == (0, 8)
    assert len(list((out / "test").iterdir())) == len(list((out / "train").iterdir())) == 4
    assert {line["identity"]: line["sha256"] for line in manifest(out)} == made
    # A clip whose raw data is gone stays in its split.
    write_plan(raw, clips[:1])
    assert run()["kept"] == 1
    assert len(manifest(out)) == 8
    fresh = tmp_path / "fresh"
    write_plan(raw, clips)
    run()
    assert tested.exists()
    run_cli("preprocess", "planned", raw, "-o", fresh, *PNG, *INSIDE)
    assert tree(fresh) == tree(out)


def test_a_gone_raw_file_does_not_cost_the_clip(run_cli, tmp_path, planned):
    raw, out = write_plan(tmp_path / "raw", [{"identity": "a", "name": "c", "path": "a.mp4"}]), tmp_path / "out"
    write_clip(raw / "a.mp4")
    arguments = ("preprocess", "planned", raw, "-o", out, *PNG, *INSIDE, "--json")
    assert run_cli(*arguments).json()["written"] == 1
    (raw / "a.mp4").unlink()
    assert run_cli(*arguments).json()["kept"] == 1
    write_clip(raw / "a.mp4", frames=12)
    assert run_cli(*arguments).json()["written"] == 1
    assert manifest(out)[0]["frames"] == 12


def test_failures_are_listed_and_the_rest_continues(run_cli, tmp_path, planned):
    """Including a killed worker, and frames that cannot be pickled."""
    raw = write_plan(
        tmp_path / "raw",
        [
            grey("a", "good"),
            grey("b", "dies", then="die"),
            grey("c", "raises", then="raise"),
            grey("d", "stays", then="lambda"),
            {"identity": "e", "name": "gone", "path": "gone.mp4"},
            {"identity": "f", "name": "text", "path": "plan.json"},
            {"identity": "g", "name": "out", "path": "../x"},
            grey("h", "talks", then="print"),
            *(grey("i", f"more{index}") for index in range(4)),
        ],
    )
    out = tmp_path / "out"
    result = run_cli("preprocess", "planned", raw, "-o", out, *PNG, "--workers", "2", "--json")
    assert result.code == 6, result.stderr
    data = result.json()
    assert (data["written"], len(data["failed"])) == (7, 5)
    failed = {each["clip"]: (each["source"], each["message"]) for each in data["failed"]}
    assert failed["b#dies"] == (None, "its process was killed by SIGKILL (memory may have run out)")
    assert failed["c#raises"] == (
        None,
        "ValueError: half of it is missing, in plugin 'planned' (fommctl_planned) of fommctl-planned",
    )
    assert failed["e#gone"] == ("gone.mp4", "the raw file is missing: gone.mp4")
    assert failed["f#text"][0] == "plan.json"
    assert failed["g#out"][1].startswith("its file is outside the raw folder")
    assert [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()] == data["failed"]
    assert sum(totals["failed"] for totals in data["splits"].values()) == 5
    text = run_cli("preprocess", "planned", raw, "-o", out, *PNG, "--workers", "1")
    assert text.code == 6
    assert "failed: e#gone: the raw file is missing: gone.mp4" in text.stdout
    assert "0 clips written, 7 already there" in text.stdout
    # After the repair, only the failed ones are made, and nothing is listed any more.
    write_plan(raw, [grey("a", "good"), grey("b", "dies"), grey("c", "raises"), grey("d", "stays")])
    again = run_cli("preprocess", "planned", raw, "-o", out, *PNG, *INSIDE, "--json")
    assert (again.code, again.json()["written"], again.json()["kept"]) == (0, 2, 2)
    assert not (out / "failed.jsonl").exists()


def test_nothing_that_could_be_made_is_an_error(run_cli, tmp_path, planned):
    raw = write_plan(tmp_path / "raw", [{"identity": "e", "name": name, "path": f"{name}.mp4"} for name in "ab"])
    error = run_cli("preprocess", "planned", raw, "-o", tmp_path / "out", "--json").json()["error"]
    assert error["exit_code"] == 3
    assert error["message"] == "none of the 2 clips could be made; e#a: the raw file is missing: a.mp4"
    assert "ask Ada at example.org" in error["hint"]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["sinthetic", "-o", "OUT"], 2, "unknown dataset 'sinthetic'", "Did you mean 'synthetic'?"),
        (["planned", "-o", "OUT"], 2, "the data set 'planned' is read from a raw folder", "ask Ada at example.org"),
        (["planned", "EMPTY", "-o", "OUT"], 3, "EMPTY has no plan.json", "Write one. About the data: ask Ada"),
        (["planned", "NONE", "-o", "OUT"], 3, "NONE contains no clip of the data set 'planned'", "ask Ada"),
        (["planned", "MISSING", "-o", "OUT"], 3, "does not exist", "ask Ada"),
        (["planned", "RAW", "-o", "RAW/out"], 2, "the output is inside the raw folder", "-o"),
        (["planned", "RAW", "-o", "FULL"], 2, "is not empty and contains no data set made by preprocess", "-o"),
        (["planned", "RAW", "-o", "FULL/file"], 3, "the output is not a folder", "-o"),
        (["planned", "RAW", "-o", "FULL/file/out"], 3, "cannot make the folder", "-o"),
        (["synthetic", "-o", "OTHER"], 2, "OTHER contains the data set 'planned'", "a separate folder"),
        (["planned", "RAW", "-o", "OUT", "--format", "avi"], 2, "--format cannot be 'avi'", "mp4, mov, mkv"),
        (["planned", "RAW", "-o", "OUT", "--format", "nmp4"], 2, "--format cannot be 'nmp4'", "Did you mean mp4?"),
        (["planned", "RAW", "-o", "OUT", "--fit", "x"], 2, "--fit cannot be 'x'", "pad, crop, stretch"),
        (["planned", "RAW", "-o", "OUT", "--size", "0"], 2, "--size cannot be 0", "from 2 on"),
        (["planned", "RAW", "-o", "OUT", "--size", "65"], 2, "mp4 supports only even sizes, not 65", "--format png"),
        (["planned", "RAW", "-o", "OUT", "--test-fraction", "1"], 2, "--test-fraction cannot be 1", "from 0, below 1"),
        (["planned", "RAW", "-o", "OUT", "--limit", "0"], 2, "--limit cannot be 0", "from 1 on"),
        (["planned", "RAW", "-o", "OUT", "--workers", "-1"], 2, "--workers cannot be -1", "from 0 on"),
        (["planned", "RAW", "-o", "OUT", "--preset", "voks"], 2, "voks", "vox"),
    ],
)  # fmt: skip
def test_what_is_refused(run_cli, tmp_path, planned, monkeypatch, arguments, code, message, hint):
    monkeypatch.chdir(tmp_path)
    write_plan(Path("RAW"), [grey("a", "c")])
    write_plan(Path("NONE"), [])
    for name in ("EMPTY", "FULL", "OTHER"):
        Path(name).mkdir()
    Path("FULL/file").touch()
    assert run_cli("preprocess", "planned", "RAW", "-o", "OTHER", *PNG, *INSIDE).code == 0
    before = tree(tmp_path)
    result = run_cli("preprocess", *arguments, "--json")
    error = result.json()["error"]
    assert (result.code, error["exit_code"]) == (code, code)
    assert message in error["message"]
    assert hint in error["hint"]
    assert tree(tmp_path) == before


def test_a_hostile_manifest_reaches_nothing_outside(run_cli, tmp_path, planned):
    raw, out, victim = write_plan(tmp_path / "raw", [grey("a", "c")]), tmp_path / "out", tmp_path / "victim.mp4"
    arguments = ("preprocess", "planned", raw, "-o", out, *INSIDE, "--size", "16", "--json")
    assert run_cli(*arguments).code == 0
    victim.touch()
    (line,) = manifest(out)
    hostile = [
        {**line, "file": file, "state": "old"}
        for file in ("../victim.mp4", "train/../../victim.mp4", str(victim), "train/..")
    ]
    rows = [*map(json.dumps, hostile), "{", "[]", "null", json.dumps({**line, "frames": "x"}), '{"file": "tra']
    (out / "manifest.jsonl").write_text("\n".join(rows))
    result = run_cli(*arguments)
    assert (result.code, result.json()["written"]) == (0, 1)
    assert manifest(out) == [line]
    assert victim.exists()


def test_events(run_cli, tmp_path, planned, third_party):
    third_party(
        """
        import json
        from pathlib import Path
        from fommctl.api import hookimpl

        @hookimpl
        def fommctl_stage_started(event):
            Path("started.json").write_text(json.dumps([event.stage, dict(event.details)]))

        @hookimpl
        def fommctl_stage_finished(event):
            Path("finished.json").write_text(json.dumps([event.stage, dict(event.details)]))
        """,
        name="fommctl-listener",
        entry="listener",
    )
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        result = run_cli(
            "preprocess",
            "planned",
            write_plan(tmp_path / "raw", [grey("a", "c")]),
            "-o",
            "out",
            *PNG,
            *INSIDE,
            "--json",
        )
    finally:
        os.chdir(before)
    stage, details = json.loads((tmp_path / "started.json").read_text())
    assert (stage, details["config"]["dataset"], details["config"]["size"]) == ("preprocess", "planned", 16)
    assert json.loads((tmp_path / "finished.json").read_text()) == ["preprocess", result.json()]


def start(tmp_path: Path, *arguments: object, **limits: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "fommctl", "preprocess", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(tmp_path), **pipes, **limits)


def lines_in(path: Path) -> int:
    return path.read_text().count("sha256") if path.exists() else 0


@pytest.mark.parametrize(
    ("number", "format"), [(signal.SIGKILL, "mp4"), (signal.SIGKILL, "png"), (signal.SIGTERM, "mp4")]
)
def test_a_run_that_is_killed_is_completed_by_the_next(run_cli, tmp_path, planned, number, format):
    raw = write_plan(tmp_path / "raw", [grey(f"p{index}", "c", shade=index, count=20) for index in range(20)])
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = ("--size", "64", "--format", format, "--json")
    assert run_cli("preprocess", "planned", raw, "-o", whole, *options, *INSIDE).code == 0
    run = start(tmp_path, "planned", raw, "-o", out, *options, "--workers", "1")
    # From 1 on: before its first clip, the run may not handle signals yet.
    done = random.SystemRandom().randrange(1, 14)
    while run.poll() is None and lines_in(out / ".preprocess.jsonl") < done:
        time.sleep(0.001)
    run.send_signal(number)
    _, errors = run.communicate()
    assert run.returncode == (130 if number == signal.SIGTERM else -number), errors
    # Files with final names are complete.
    expected = tree(whole)
    for name, content in tree(out).items():
        if name.startswith(("train/", "test/")):
            assert content == expected[name]
    if number == signal.SIGTERM:
        assert sorted(path.name for path in out.iterdir()) == [MARKER, "manifest.jsonl", "test", "train"]
        assert len(manifest(out)) >= done
    second = run_cli("preprocess", "planned", raw, "-o", out, *options, *INSIDE)
    assert second.code == 0, second.stderr
    assert second.json()["kept"] >= done
    assert tree(out) == expected


def test_two_runs_do_not_share_a_folder(run_cli, tmp_path, planned):
    from fommctl.preprocess.manifest import Manifest

    raw, out = write_plan(tmp_path / "raw", [grey("a", "c")]), tmp_path / "out"
    with Manifest(out, "planned"):
        result = run_cli("preprocess", "planned", raw, "-o", out, *INSIDE, "--json")
        assert (result.code, result.json()["error"]["message"]) == (2, f"another run is writing to {out}")
    assert run_cli("preprocess", "planned", raw, "-o", out, *INSIDE, "--size", "16").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_stops_the_run_and_the_next_one_continues(run_cli, tmp_path, planned):
    import resource

    clips = [grey("a", "small", count=2), grey("b", "large", count=40, shade=100)]
    raw, out = write_plan(tmp_path / "raw", clips), tmp_path / "out"
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    write_clip(raw / "noise.mp4", width=64, height=64, frames=40, draw=lambda index: noise[index])
    write_plan(raw, [*clips[:1], {"identity": "b", "name": "large", "path": "noise.mp4"}])
    options = ("planned", raw, "-o", out, "--size", "64", "--json")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # noqa: E731
    run = start(tmp_path, *options, "--workers", "1", preexec_fn=limit)
    stdout, stderr = run.communicate()
    assert run.returncode == 3, stderr
    assert json.loads(stdout)["error"]["message"].startswith("the disk is full")
    assert [line["name"] for line in manifest(out)] == ["small"]
    second = run_cli("preprocess", *options, *INSIDE)
    assert (second.code, second.json()["written"], second.json()["kept"]) == (0, 1, 1)


def test_memory_does_not_grow_with_the_clip(tmp_path, planned):
    def peak(count: int) -> int:
        raw = write_plan(tmp_path / f"raw{count}", [grey("a", "c", count=count)])
        arguments = ("preprocess", "planned", raw, "-o", tmp_path / f"out{count}", *INSIDE)
        code = (
            "import resource, sys\nfrom fommctl.cli.main import main\n"
            f"assert main({list(map(str, arguments))}) == 0\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
        )
        return int(done.stdout.splitlines()[-1])

    # 600 frames of 256 x 256 are 118 MB.
    assert peak(640) - peak(40) < 30_000


def test_speed_of_a_video_is_kept(run_cli, tmp_path, planned):
    raw = write_plan(tmp_path / "raw", [{"identity": "a", "name": "c", "path": "a.mp4"}])
    write_clip(raw / "a.mp4", frames=9, rate=Fraction(30000, 1001))
    assert run_cli("preprocess", "planned", raw, "-o", tmp_path / "out", *INSIDE, "--size", "32").code == 0
    (line,) = manifest(tmp_path / "out")
    assert line["rate"] == "30000/1001"
    assert track(tmp_path / "out" / line["file"]).times == [index * Fraction(1001, 30000) for index in range(9)]


def test_a_split_whose_clips_all_failed_is_reported(run_cli, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "raw" / split).mkdir(parents=True)
    write_clip(tmp_path / "raw" / "train" / "a#1.mp4", width=48, height=48, frames=3)
    (tmp_path / "raw" / "test" / "b#1.mp4").write_bytes(b"no video")
    (tmp_path / "raw" / "test" / "b#2.r3d").write_bytes(b"not known")
    result = run_cli("preprocess", "faces", tmp_path / "raw", "-o", tmp_path / "out", *PNG, *INSIDE, "--json")
    assert result.code == 6
    told = result.json()["warnings"]
    assert "the test split is empty: none of its 1 clips could be made" in told
    assert f"{tmp_path / 'raw' / 'test'}: 1 file passed over: .r3d (1)" in told


def test_interlaced_footage_is_made_whole(run_cli, tmp_path):
    (tmp_path / "raw").mkdir()
    interlaced(tmp_path / "raw" / "a.mts")
    size = ("--format", "png", "--size", "96", "--fit", "crop", "--test-fraction", "0")
    for mode, count in (("auto", FRAMES), ("field", 2 * FRAMES), ("off", FRAMES)):
        out = tmp_path / mode
        result = run_cli(
            "preprocess", "faces", tmp_path / "raw", "-o", out, *size, *INSIDE, "--deinterlace", mode, "--json"
        )
        assert result.code == 0, result.stderr
        pictures = [np.asarray(Image.open(path)).astype(int) for path in sorted((out / "train").rglob("*.png"))]
        assert len(pictures) == count
        lines = pictures[5][..., 1]
        combs = np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean()
        assert combs < 2 if mode != "off" else combs > 6


def test_a_foreign_manifest_is_not_rewritten(run_cli, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text('{"file": "a.wav", "speaker": 7}\n')
    (out / "failed.jsonl").write_text("mine")
    result = run_cli("preprocess", "synthetic", "-o", out, *PNG[:2], "--size", "16", "--limit", "1", *INSIDE)
    assert (result.code, "contains no data set made by preprocess" in result.stderr) == (2, True)
    assert (out / "manifest.jsonl").read_text() == '{"file": "a.wav", "speaker": 7}\n'
    assert sorted(path.name for path in out.iterdir()) == ["failed.jsonl", "manifest.jsonl"]


def fails_once(failing, real):
    """Make one rename fail, as in `failing`, and all others succeed."""
    done = []

    def rename(path, target):
        if done:
            return real(path, target)
        try:
            return failing(path, target)
        except OSError:
            done.append(path)
            raise

    return rename


def test_a_pipe_instead_of_a_manifest_is_not_waited_for(run_cli, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MARKER).touch()
    os.mkfifo(out / "manifest.jsonl")
    result = run_cli("preprocess", "synthetic", "-o", out, *PNG[:2], "--size", "16", "--limit", "1", *INSIDE)
    assert (result.code, "manifest.jsonl cannot be read: it is a pipe or a device" in result.stderr) == (3, True)


def test_lines_and_files_of_others_stay(run_cli, tmp_path):
    out = tmp_path / "out"
    wanted = ("preprocess", "synthetic", "-o", out, *PNG[:2], "--size", "16", *INSIDE)
    assert run_cli(*wanted, "--limit", "1").code == 0
    foreign = '{"file": "train/mine.mp4", "identity": "me"}'
    with (out / "manifest.jsonl").open("a") as file:
        file.write(f'{foreign}\n{{"file": "torn\n')
    (out / "failed.jsonl").write_text("my notes\n")
    (out / ".work-mine").mkdir()
    result = run_cli(*wanted, "--limit", "2")
    assert result.code == 0, result.stderr
    lines = (out / "manifest.jsonl").read_text().splitlines()
    assert (len(lines), lines[-1]) == (3, foreign)
    assert (out / "failed.jsonl").read_text() == "my notes\n"
    assert (out / ".work-mine").is_dir()


def test_verify_notices_raw_content_that_changed_at_equal_size(run_cli, tmp_path, planned):
    raw = write_plan(tmp_path / "raw", [grey("a", "c"), {"identity": "b", "name": "d", "path": "clip.y4m"}])
    path = raw / "clip.y4m"
    path.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420\n" + (b"FRAME\n" + b"\x80" * 384) * 3)
    wanted = ("preprocess", "planned", raw, "-o", tmp_path / "out", *PNG, *INSIDE, "--json")
    assert run_cli(*wanted).json()["written"] == 2
    (entry,) = [line for line in manifest(tmp_path / "out") if line["identity"] == "b"]
    assert entry["source_sha256"] == sha256(path.read_bytes()).hexdigest()
    data, times = bytearray(path.read_bytes()), path.stat()
    data[-200] ^= 64
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_cli(*wanted).json()["written"] == 0
    assert run_cli(*wanted, "--verify").json()["written"] == 1


def test_old_pictures_come_back_where_new_ones_cannot_take_their_place(run_cli, tmp_path, monkeypatch):
    wanted = ("preprocess", "synthetic", "-o", tmp_path / "out", *PNG[:2], "--limit", "1", *INSIDE)
    assert run_cli(*wanted, "--size", "16").code == 0
    before = tree(tmp_path / "out" / "train") | tree(tmp_path / "out" / "test")
    real = Path.rename

    def failing(path, target):
        """Make renames of new pictures fail, and every one after the first failure."""
        if failed or path.parent.name not in ("train", "test"):
            failed.append(path)
            raise OSError(errno.EIO, "input/output error")
        return real(path, target)

    def after():
        return tree(tmp_path / "out" / "train") | tree(tmp_path / "out" / "test")

    for persistent in (False, True):
        failed = []
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", failing if persistent else fails_once(failing, real))
            assert run_cli(*wanted, "--size", "32").code == 3
        kept = {name.replace("/.", "/").replace(".replaced/", "/"): content for name, content in after().items()}
        assert {name.removeprefix("."): content for name, content in kept.items()} == before
    # The next run makes the clip again and leaves no other files.
    assert run_cli(*wanted, "--size", "32").code == 0
    assert after().keys() == {name.removeprefix(".") for name in before}
    assert not list(tmp_path.rglob(".*.replaced"))
