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


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of someone who has a portrait and a clip."""
    Image.open(ASTRONAUT).convert("RGB").save(tmp_path / "portrait.jpg", quality=95)
    face_clip(tmp_path / "talk.mp4", count=20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 8
    assert all(command.startswith("fommctl ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, here, run_cli):
    result = run_cli(*shlex.split(command)[1:])
    assert result.code == 0, result.stderr
    assert result.stdout


def test_python(here):
    driving_frames = [np.zeros((128, 128, 3), np.uint8)] * 3
    printed = []
    for block in blocks("python"):
        exec(block, {"driving_frames": driving_frames, "print": lambda *values: printed.append(values)})
    assert printed == [((128, 128, 3), np.uint8)] * 3
    assert (here / "python.mp4").exists()
