"""The commands and the Python of the README, as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shots import ASTRONAUT, face_clip

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


BLOCKS = [[line for line in block.splitlines() if line.strip()] for block in blocks("sh")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of someone who has a portrait and a clip."""
    Image.open(ASTRONAUT).convert("RGB").save(tmp_path / "portrait.jpg", quality=95)
    face_clip(tmp_path / "talk.mp4", count=20)
    (jobs,) = blocks("csv")
    (tmp_path / "shots.csv").write_text(jobs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_to_check():
    commands = [command for block in BLOCKS for command in block]
    assert len(commands) > 12
    assert all(command.startswith("fommctl ") for command in commands)


@pytest.mark.parametrize("commands", BLOCKS, ids=lambda commands: commands[0])
def test_commands(commands, here, run_cli):
    for command in commands:
        result = run_cli(*shlex.split(command)[1:])
        assert result.code == 0, (command, result.stderr)
        assert result.stdout


def test_python(here):
    driving_frames = [np.zeros((256, 256, 3), np.uint8)] * 3
    printed = []
    for block in blocks("python"):
        exec(block, {"driving_frames": driving_frames, "print": lambda *values: printed.append(values)})
    assert printed == [((256, 256, 3), np.uint8)] * 3
    assert (here / "python.mp4").exists()
