"""The commands and the Python code of the README and the pages under docs, exactly as printed."""

import re
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shots import ASTRONAUT, face_clip

from fommctl.bench import run as bench
from fommctl.cli import demo
from fommctl.doctor import run as doctor
from fommctl.media.reader import Reader

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


COMMANDS = {
    page.stem: [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()] for page in PAGES
}
PYTHON = [pytest.param(blocks(page, "python"), id=page.stem) for page in PAGES if blocks(page, "python")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Create a user's folder with a portrait and a clip. For speed, the demo's clip is as short, `bench` measures once,
    and `doctor`, which has its own tests, starts no processes."""
    Image.open(ASTRONAUT).convert("RGB").crop((64, 0, 384, 320)).save(tmp_path / "portrait.jpg", quality=95)
    (tmp_path / "bundled").mkdir()
    face_clip(tmp_path / "bundled/talk.mp4", count=4)
    bundled = {demo.PORTRAIT: tmp_path / "portrait.jpg", demo.CLIP: tmp_path / "bundled/talk.mp4"}
    monkeypatch.setattr(demo, "bundled", lambda *place: bundled[place])
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(doctor, "run_steps", lambda steps, limit: [])
    face_clip(tmp_path / "talk.mp4", count=16)
    (jobs,) = {table for page in PAGES for table in blocks(page, "csv")}
    (tmp_path / "shots.csv").write_text(jobs)
    (edits,) = {table for page in PAGES for table in blocks(page, "edl")}
    (tmp_path / "shots.edl").write_text(edits)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plates(here):
    """Add the files of a compositing house to that folder."""
    pytest.importorskip("OpenImageIO")
    import plates_made

    light = plates_made.linear()
    plates_made.write(here / "plate.exr", light, "half", reelName="A001")
    plates_made.write(here / "acescg.exr", light, "half", oiio__ColorSpace="ACEScg")
    log = plates_made.in_space(light, "ARRI LogC4", "ocio://studio-config-latest")
    plates_made.write(here / "log.exr", log, "half")
    plates_made.write(here / "scan.dpx", plates_made.deep_codes(), "uint16", oiio__BitsPerSample=10)
    with Reader(here / "talk.mp4", end=Fraction(1, 10)) as reader:
        for number, frame in enumerate(reader, 1001):
            picture = (frame.pixels / 255).astype(np.float32) ** 2.2
            plates_made.write(here / f"drive/drive.{number}.exr", picture, "half")


def test_there_are_commands_to_check():
    assert len(COMMANDS["README"]) > 12
    assert all(command.startswith("fommctl ") for commands in COMMANDS.values() for command in commands)


@pytest.mark.parametrize("page", [page for page, commands in COMMANDS.items() if commands])
def test_commands(page, here, run_cli, request):
    """Run the commands of a page one after the other, as a reader would."""
    if page == "post-production":
        request.getfixturevalue("plates")
    for command in COMMANDS[page]:
        result = run_cli(*shlex.split(command)[1:])
        assert result.code == 0, (command, result.stderr)
        assert result.stdout


@pytest.mark.parametrize("snippets", PYTHON)
def test_python(snippets, here):
    driving_frames = [np.zeros((256, 256, 3), np.uint8)] * 3
    printed = []
    for block in snippets:
        exec(block, {"driving_frames": driving_frames, "print": lambda *values: printed.append(values)})
    assert printed == [((256, 256, 3), np.uint8)] * 3
    assert (here / "python.mp4").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link
