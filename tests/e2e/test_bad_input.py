"""What bad input gets: one line, a hint, the right exit code, no traceback, nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from media_factory import solid, write_clip
from PIL import Image
from shots import ASTRONAUT, face_clip, portrait


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Files of every broken kind, by name, in one folder."""
    folder = tmp_path_factory.mktemp("inputs")
    portrait(folder / "portrait.png")
    write_clip(folder / "clip.mp4", width=64, height=64, frames=8)
    (folder / "text.mp4").write_text("this is not a video\n")
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    write_clip(folder / "sound.mp4", width=64, height=64, frames=8, audio=("aac",))
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "header.mp4").write_bytes(b"\0" * 64 + whole[64:])
    (folder / "tail.mp4").write_bytes(whole[: len(whole) // 3])
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.fromarray(solid(300, 300, (90, 120, 60))).save(folder / "meadow.png")
    write_clip(
        folder / "meadow.mp4", width=128, height=128, frames=8, draw=lambda index: solid(128, 128, (90, 120, 60))
    )
    (folder / "tags.yaml").write_text("model_params: !!python/object/apply:os.system ['touch pwned']\n")
    (folder / "types.yaml").write_text(
        "backend: fomm\nmodel_params:\n  common_params: {num_kp: ten, num_channels: 3}\n  kp_detector_parms: {}\n"
    )
    (folder / "model.pth.tar").write_bytes(b"PK\x03\x04 not a checkpoint")
    return folder


def case(*arguments, code, says, name):
    return pytest.param(arguments, code, says, id=name)


PREPARED = ("--crop", "none")
CASES = [
    case("missing.png", "clip.mp4", *PREPARED, code=3, says="missing.png", name="missing source"),
    case("portrait.png", "missing.mp4", *PREPARED, code=3, says="missing.mp4", name="missing driving"),
    case("folder.mp4", "clip.mp4", *PREPARED, code=3, says="folder.mp4", name="folder as source"),
    case("portrait.png", "folder.mp4", *PREPARED, code=3, says="folder.mp4", name="folder without frames"),
    case("portrait.png", "text.mp4", *PREPARED, code=3, says="text.mp4", name="text as video"),
    case("text.mp4", "clip.mp4", *PREPARED, code=3, says="text.mp4", name="text as source"),
    case("portrait.png", "empty.mp4", *PREPARED, code=3, says="empty.mp4", name="empty file"),
    case("portrait.png", "header.mp4", *PREPARED, code=3, says="header.mp4", name="corrupt header"),
    case("portrait.png", "tail.mp4", *PREPARED, code=3, says="tail.mp4", name="no index"),
    case("huge.png", "clip.mp4", *PREPARED, code=3, says="20000", name="enormous picture"),
    case("meadow.png", "clip.mp4", code=3, says="no face found", name="no face in the source"),
    case("ASTRONAUT", "meadow.mp4", code=3, says="give --driving-crop none", name="no face in the driving video"),
    case("portrait.png", "clip.mp4", *PREPARED, "--model", "vx-256", code=2, says="vox", name="unknown model"),
    case("portrait.png", "clip.mp4", *PREPARED, "--preset", "vox-265", code=2, says="vox-256", name="unknown preset"),
    case(
        "portrait.png", "clip.mp4", *PREPARED, "--preset", "tags.yaml", code=2, says="tags.yaml", name="YAML with tags"
    ),
    case("portrait.png", "clip.mp4", *PREPARED, "--preset", "types.yaml", code=2, says="types.yaml:3", name="types"),
    case("portrait.png", "clip.mp4", *PREPARED, "--preset", "vox", code=5, says="pull", name="weights not pulled"),
    case("portrait.png", "clip.mp4", *PREPARED, "--model", "model.pth.tar", code=4, says="model.pth", name="no model"),
    case("portrait.png", "clip.mp4", *PREPARED, "-o", "out.xyz", code=3, says=".mp4", name="unknown container"),
    case("portrait.png", "clip.mp4", *PREPARED, "-o", "no/such/out.mp4", code=3, says="no/such", name="no folder"),
    case("portrait.png", "clip.mp4", *PREPARED, "-o", "clip.mp4", "--overwrite", code=2, says="input", name="input"),
    case("portrait.png", "clip.mp4", *PREPARED, "-o", "sound.mp4", code=2, says="exists", name="output exists"),
    case("portrait.png", "clip.mp4", *PREPARED, "--codec", "h266", code=3, says="h266", name="unknown codec"),
    case("portrait.png", "clip.mp4", *PREPARED, "--crf", "99", code=2, says="99", name="quality out of range"),
    case("portrait.png", "clip.mp4", *PREPARED, "--motion", "relatve", code=2, says="relative", name="mistyped choice"),
    case("portrait.png", "clip.mp4", "--crop", "1,2", code=2, says="X,Y,SIZE", name="half a crop"),
    case("portrait.png", "clip.mp4", *PREPARED, "--start", "5", code=3, says="0.32", name="start beyond the end"),
    case(
        "portrait.png", "clip.mp4", *PREPARED, "--start", "2", "--end", "1", code=2, says="--end", name="times swapped"
    ),
    case("portrait.png", "clip.mp4", *PREPARED, "--device", "tpu", code=2, says="tpu", name="unknown device"),
    case("portrait.png", "clip.mp4", *PREPARED, "--precision", "int8", code=2, says="int8", name="unknown precision"),
    case("portrait.png", "clip.mp4", *PREPARED, "--fps", "fast", code=2, says="30000/1001", name="rate that is none"),
    case("portrait.png", "clip.mp4", *PREPARED, "--batch-size", "0", code=2, says="batch", name="empty batches"),
    case("portrait.png", "clip.mp4", *PREPARED, "--detector", "hog", code=2, says="dlib-hog", name="unknown detector"),
    case("portrait.png", "clip.mp4", *PREPARED, "--audio", "driving", code=2, says="no sound", name="no sound"),
    case("portrait.png", "clip.mp4", *PREPARED, "--set", "model_params.nmu_kp=3", code=2, says="nmu_kp", name="key"),
    case("portrait.png", code=2, says="DRIVING", name="one argument"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), CASES)
def test_one_line_and_a_hint(inputs, run_cli, monkeypatch, arguments, code, says):
    monkeypatch.chdir(inputs)
    before = {entry.name: entry.stat().st_mtime_ns for entry in inputs.iterdir()}
    arguments = [str(ASTRONAUT) if argument == "ASTRONAUT" else argument for argument in arguments]
    result = run_cli("animate", *arguments)
    assert result.code == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert says in result.stderr
    assert "hint: " in result.stderr
    assert {entry.name: entry.stat().st_mtime_ns for entry in inputs.iterdir()} == before


def test_an_error_as_json(inputs, run_cli, monkeypatch):
    monkeypatch.chdir(inputs)
    result = run_cli("animate", "portrait.png", "empty.mp4", *PREPARED, "--json")
    error = result.json()["error"]
    assert result.code == error["exit_code"] == 3
    assert "empty.mp4" in error["message"]
    assert error["hint"]


def test_a_picture_of_one_pixel_is_animated_as_what_it_is(inputs, run_cli, tmp_path):
    out = tmp_path / "out.mkv"
    result = run_cli("animate", inputs / "dot.png", inputs / "clip.mp4", "-o", out, *PREPARED, "--json")
    assert result.code == 0, result.stderr
    assert result.json()["frames"] == 8


def test_all_frames_of_a_torn_file_are_used_with_a_warning(inputs, run_cli, tmp_path):
    clip = write_clip(tmp_path / "whole.mkv", width=64, height=64, frames=40, options={"g": "10"})
    data = clip.read_bytes()
    (tmp_path / "torn.mkv").write_bytes(data[: int(len(data) * 0.6)])
    out = tmp_path / "out.mkv"
    result = run_cli("animate", inputs / "portrait.png", tmp_path / "torn.mkv", "-o", out, *PREPARED, "--json")
    assert result.code == 0, result.stderr
    assert 5 < result.json()["frames"] < 40
    assert any("torn.mkv" in warning for warning in result.json()["warnings"])


def test_several_faces_the_largest_is_taken_and_the_number_is_said(run_cli, tmp_path):
    face = Image.open(ASTRONAUT).convert("RGB")
    wide = Image.new("RGB", (900, 512), (120, 120, 120))
    wide.paste(face, (0, 0))
    wide.paste(face.crop((100, 0, 356, 256)).resize((205, 205)), (620, 40))
    wide.save(tmp_path / "two.png")
    clip = face_clip(tmp_path / "face.mp4", count=4, audio=())
    result = run_cli("animate", tmp_path / "two.png", clip, "-o", tmp_path / "%d.png", "--json")
    assert result.code == 0, result.stderr
    assert any(warning == "2 subjects in two.png: the largest is taken" for warning in result.json()["warnings"])
    changed = np.asarray(Image.open(tmp_path / "4.png" if (tmp_path / "4.png").exists() else tmp_path / "3.png"))
    difference = np.abs(changed.astype(int) - np.asarray(wide)).max(2)
    assert difference[:, :450].any()
    assert not difference[:, 600:].any()


def start_long_run(folder, out):
    """An animation that takes a minute, in a process of its own, once it has begun to write."""
    clip = write_clip(folder / "long.mp4", width=64, height=64, frames=4000)
    arguments = ["animate", folder / "portrait.png", clip, "-o", out, *PREPARED]
    process = subprocess.Popen(
        [sys.executable, "-m", "fommctl", *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=folder
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(".tmp" in entry.name for entry in out.parent.iterdir()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, number):
    portrait(tmp_path / "portrait.png")
    (tmp_path / "out").mkdir()
    process = start_long_run(tmp_path, tmp_path / "out" / "result.mp4")
    time.sleep(0.5)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="resource limits of POSIX")
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path):
    portrait(tmp_path / "portrait.png")
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    clip = write_clip(tmp_path / "noise.mp4", width=64, height=64, frames=40, draw=lambda index: noise[index])
    (tmp_path / "out").mkdir()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000));"
        "from fommctl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["animate", tmp_path / "portrait.png", clip, "-o", tmp_path / "out" / "result.mkv", *PREPARED]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
