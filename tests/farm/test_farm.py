"""`fommctl farm`: the tasks emitted for each engine, run from first to last, give the result of one machine."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import distributions
import farms
import pytest
from batches import EXACT, GATE, TINY, hidden, until, write_shots
from forked_commands import ForkedCommand
from shots import face_clip

from fommctl.detection.detectors import DetectorCache

FRAMES = 8
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="runs shell scripts"),
    pytest.mark.usefixtures("one_thread"),
]
SHOT = ("--crop", "none", "--smooth", *map(str, (*TINY, *EXACT)))


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only shots."""
    return write_shots(tmp_path_factory.mktemp("shots"), frames=FRAMES)


@pytest.fixture
def folder(shots: Path, tmp_path: Path) -> Path:
    """A folder with a space in its name."""
    shutil.copytree(shots, tmp_path / "a night")
    return tmp_path / "a night"


def emit(run_cli, folder: Path, engine: str, result: str = "farm.mkv", *more: str, chunk: int = 3) -> Path:
    job = folder / "job"
    words = ("--engine", engine, "--chunk", str(chunk), "--result", folder / result, "-o", job, "--json")
    done = run_cli("farm", "emit", folder / "a.png", folder / "d1.mp4", *SHOT, *words, *more)
    assert done.code == 0, done.stderr
    assert all(Path(name).is_file() for name in done.json()["files"])
    return job


def alone(run_cli, folder: Path, result: str = "alone.mkv", *more: str) -> Path:
    """The file that `animate` writes."""
    done = run_cli("animate", folder / "a.png", folder / "d1.mp4", "-o", folder / result, *SHOT, *more)
    assert done.code == 0, done.stderr
    return folder / result


def same(run_cli, folder: Path) -> bool:
    return (folder / "farm.mkv").read_bytes() == alone(run_cli, folder).read_bytes()


@pytest.mark.slow
def test_an_openjd_template_is_valid_and_runs(run_cli, folder, tmp_path):
    """The rendering machine sees all files under other paths than the submitting one."""
    model = pytest.importorskip("openjd.model")
    yaml = pytest.importorskip("yaml")
    job = emit(run_cli, folder, "openjd", chunk=4)
    template = model.decode_job_template(
        template=yaml.safe_load((job / "template.yaml").read_text()), supported_extensions=["TASK_CHUNKING"]
    )
    assert [step.name for step in template.steps] == ["Motion", "Render", "Encode"]
    assets = yaml.safe_load((job / "asset_references.yaml").read_text())["assetReferences"]
    assert str(folder / "a.png") in assets["inputs"]["filenames"]
    assert assets["outputs"]["directories"] == [str(folder)]
    moved, rules = tmp_path / "elsewhere", tmp_path / "rules.json"
    folder.rename(moved)
    rule = {"source_path_format": "POSIX", "source_path": str(folder), "destination_path": str(moved)}
    rules.write_text(json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": [rule]}))
    said = farms.run(
        "openjd", "run", moved / "job" / "template.yaml", "--run-dependencies", "--step", "Encode",
        "--path-mapping-rules", f"file://{rules}", cwd=moved, env=farms.programs(tmp_path / "bin"),
    )  # fmt: skip
    for line in ("openjd_status: detecting motion", "openjd_status: rendering frames 5-8", "openjd_progress: 100"):
        assert line in said
    assert same(run_cli, moved)
    assert hidden(moved) == []


def test_an_error_is_reported_to_openjd(folder, run_cli):
    done = run_cli("farm", "encode", folder / "nowhere", "--log-format", "openjd")
    assert (done.code, done.stderr) == (3, "")
    assert done.stdout == f"openjd_fail: {folder}/nowhere does not exist. Check the spelling and the folder.\n"


@pytest.mark.parametrize("engine", ["slurm", "deadline"])
def test_what_is_submitted_renders_the_shot(run_cli, folder, tmp_path, engine):
    job = emit(run_cli, folder, engine)
    farms.run("sh", job / "submit.sh", cwd=folder, env=farms.programs(tmp_path / "bin", noted=True))
    for words in farms.asked(tmp_path / "bin"):
        assert run_cli(*words).code == 0
    assert same(run_cli, folder)
    assert hidden(folder) == []


def test_opencue(run_cli, folder):
    """The outline has three layers that wait for each other; their commands render the shot."""
    outline = pytest.importorskip("outline")
    cue = pytest.importorskip("outline.backend.cue")
    job = emit(run_cli, folder, "opencue")
    script: dict[str, object] = {"__name__": "outline"}
    exec((job / "submit.py").read_text(), script)
    launcher = outline.cuerun.OutlineLauncher(script["build"]())
    text = cue.serialize_simple(launcher)
    spec = ET.fromstring(text.partition("?>")[2].partition('dtd">')[2])
    waits = [(each.findtext("deplayer"), each.findtext("onlayer")) for each in spec.iter("depend")]
    assert waits == [("render", "motion"), ("encode", "render")]
    layers = {layer.get("name"): layer for layer in spec.iter("layer") if layer.get("name")}
    assert list(layers) == ["motion", "render", "encode"]
    for layer in layers.values():
        for first, last in farms.chunks(layer.findtext("range") or "", int(layer.findtext("chunk") or 1)):
            command = (layer.findtext("cmd") or "").replace("#FRAME_START#", str(first))
            words = shlex.split(command.replace("#FRAME_END#", str(last)))
            assert words[0] == "fommctl"
            assert run_cli(*words[1:]).code == 0
    assert same(run_cli, folder)


@pytest.mark.skipif(shutil.which("node") is None, reason="the job type is JavaScript")
def test_flamenco(run_cli, folder):
    job = emit(run_cli, folder, "flamenco")
    manager = """
        const author = {
            Task: (name, type) => ({name, type, waits: [], commands: [], addCommand(one) { this.commands.push(one) },
                                    addDependency(other) { this.waits.push(other.name) }}),
            Command: (name, parameters) => ({name, parameters}),
        };
        const frameChunker = (frames, size) => {
            const [first, last] = frames.split("-").map(Number), found = [];
            for (let at = first; at <= last; at += size) found.push(`${at}-${Math.min(at + size - 1, last)}`);
            return found;
        };
        const tasks = [];
        const settings = Object.fromEntries(JOB_TYPE.settings.map(one => [one.key, one.default]));
        compileJob({settings, addTask: one => tasks.push(one)});
        console.log(JSON.stringify(tasks));
    """
    (folder / "run.js").write_text((job / "fommctl-shot.js").read_text() + manager)
    tasks = json.loads(subprocess.check_output(["node", folder / "run.js"]))
    renders = ["render-1-3", "render-4-6", "render-7-8"]
    assert [task["name"] for task in tasks] == ["motion", *renders, "encode"]
    assert tasks[-1]["waits"] == renders
    assert all(task["waits"] == ["motion"] for task in tasks[1:-1])
    for task in tasks:
        (command,) = task["commands"]
        assert command["parameters"]["exe"] == "fommctl"
        assert run_cli(*command["parameters"]["args"]).code == 0
    assert same(run_cli, folder)


@pytest.mark.parametrize("more", [(), ("--frames", "3-7"), ("--fps", "7")], ids=["all", "part", "rate"])
def test_pictures_need_no_last_task(run_cli, folder, more):
    """Chunks in any order write them into one folder, including frames that are shown twice or not at all."""
    job = emit(run_cli, folder, "slurm", "farm/%04d.png", *more, chunk=3)
    assert not (job / "encode.sbatch").exists()
    assert "encode" not in (job / "submit.sh").read_text()
    assert run_cli("farm", "motion", job).code == 0
    first, last = json.loads((job / "shot.json").read_text())["frames"]
    for start in reversed(range(first, last + 1, 3)):
        done = run_cli("farm", "render", job, "--frames", f"{start}-{start + 2}")
        assert done.code == 0, done.stderr
    alone(run_cli, folder, "alone/%04d.png", *more)
    assert pictures(folder / "farm") == pictures(folder / "alone")
    assert hidden(folder) == []
    assert run_cli("farm", "encode", job).code == 2


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return names and modification times of the files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("result", ["farm.mkv", "farm/%04d.png"])
def test_tasks_that_run_twice_change_nothing(run_cli, folder, result):
    job = emit(run_cli, folder, "slurm", result)
    tasks = [("motion", job), *(("render", job, "--frames", each) for each in ("1-4", "5-8"))]
    tasks += [("encode", job)] if result == "farm.mkv" else []
    for kept in (False, True):
        before = snapshot(folder)
        for words in tasks:
            done = run_cli("farm", *words, "--json")
            assert done.code == 0, done.stderr
            assert done.json()["kept"] is kept
    assert snapshot(folder) == before
    if result != "farm.mkv":
        # A missing picture is rendered again.
        gone = folder / "farm" / "0006.png"
        content = gone.read_bytes()
        gone.unlink()
        assert run_cli("farm", "render", job, "--frames", "5-8").code == 0
        assert gone.read_bytes() == content


def test_a_video_as_source_is_searched_by_the_first_task_only(run_cli, tmp_path, monkeypatch):
    for name, count in (("source.mkv", 6), ("driving.mp4", 7)):
        face_clip(tmp_path / name, count=count, rate=Fraction(25))
    words = (tmp_path / "source.mkv", tmp_path / "driving.mp4", "--source-video", *EXACT)
    job = tmp_path / "job"
    more = ("--engine", "slurm", "--chunk", "3", "--result", tmp_path / "farm.mkv", "-o", job)
    for command in (
        ("animate", *words, "-o", tmp_path / "alone.mkv"),
        ("farm", "emit", *words, *more),
        ("farm", "motion", job),
    ):
        done = run_cli(*command)
        assert done.code == 0, done.stderr
    monkeypatch.setattr(DetectorCache, "in_clip", None)
    for task in (("render", job, "--frames", "4-6"), ("render", job, "--frames", "1-3"), ("encode", job)):
        done = run_cli("farm", *task)
        assert done.code == 0, done.stderr
    assert (tmp_path / "farm.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()


def test_the_last_chunk_continues_to_the_true_end(run_cli, folder):
    """No frame is lost if headers state fewer or more frames than there are."""
    for promised in (5, 10):
        shutil.rmtree(folder / "job", ignore_errors=True)
        job = emit(run_cli, folder, "slurm", "farm.mkv", "--overwrite")
        shot = json.loads((job / "shot.json").read_text())
        (job / "shot.json").write_text(json.dumps({**shot, "frames": [1, promised]}))
        assert run_cli("farm", "motion", job).code == 0
        for start in range(1, promised + 1, 3):
            assert run_cli("farm", "render", job, "--frames", f"{start}-{start + 2}").code == 0
        assert run_cli("farm", "encode", job).code == 0
        assert (folder / "farm.mkv").read_bytes() == alone(run_cli, folder, "alone.mkv", "--overwrite").read_bytes()


def test_a_sidecar_and_a_motion_file(run_cli, folder):
    job = emit(run_cli, folder, "slurm", "farm.mkv", "--sidecar", "--motion-out", str(folder / "take.motion"))
    for words in (("motion", job), ("render", job, "--frames", "1-8"), ("encode", job)):
        assert run_cli("farm", *words).code == 0
    again = run_cli("animate", "--from-sidecar", folder / "farm.mkv.json", "-o", folder / "again.mkv", "--json")
    assert again.json()["reproduction"]["identical"] is True
    assert (folder / "take.motion").exists()


def test_sigterm_leaves_no_half_written_frame(run_cli, folder, tmp_path):
    distributions.install(tmp_path / "site", GATE, name="gate", entry="gate")
    for result in ("farm.mkv", "farm/%04d.png"):
        job = emit(run_cli, folder, "slurm", result, "--overwrite")
        assert run_cli("farm", "motion", job).code == 0
        gate = folder / f"{result}.gate"
        gate.parent.mkdir(exist_ok=True)
        gate.touch()
        process = ForkedCommand("farm", "render", job, "--frames", "1-5", path=tmp_path / "site")
        if result == "farm.mkv":
            until(lambda job=job: (job / "frames" / "00000002.png").exists())
        else:
            until(lambda: hidden(folder))
        process.send_signal(signal.SIGTERM)
        # The composing thread waits at the gate.
        gate.unlink()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert hidden(folder) == []
        assert run_cli("farm", "render", job, "--frames", "1-5").code == 0
        shutil.rmtree(job)


def test_what_is_refused(run_cli, folder):
    job = emit(run_cli, folder, "slurm")
    again = ("farm", "emit", folder / "a.png", folder / "d1.mp4", *SHOT, "--engine", "slurm", "-o")
    for words, code, message in (
        ((*again, job), 2, "the job already exists"),
        ((*again, folder), 2, "contains no job of a farm"),
        ((*again, folder / "new", "--chunk", "0"), 2, "--chunk cannot be 0"),
        ((*again, folder / "new", "--frames", "99-"), 2, "--frames 99- is beyond the end"),
        ((*again, folder / "new", "--result", folder / "x.doc"), 3, ".doc"),
        (("farm", "render", job, "--frames", "1-5"), 3, "job has no motion yet"),
    ):
        done = run_cli(*words)
        assert (done.code, message in done.stderr) == (code, True), done.stderr
    assert run_cli("farm", "motion", job).code == 0
    for frames in ("9-2", "99-104", "a"):
        assert run_cli("farm", "render", job, "--frames", frames).code == 2
    done = run_cli("farm", "encode", job)
    assert (done.code, "8 frames are not rendered yet, the first is 1" in done.stderr) == (3, True)
    assert not (folder / "new").exists()
    assert hidden(folder) == []
