"""Half-written files of a killed process are removed when the same output is written again, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fommctl.files import temporary_path
from fommctl.media.output_paths import remove_stale_output
from fommctl.media.writer import Writer

KILLED = """
import os, sys
import numpy as np
from fractions import Fraction
from fommctl.media.writer import Writer
with Writer(sys.argv[1], width=16, height=16, rate=Fraction(25)) as writer:
    for index in range(3):
        writer.write(np.zeros((16, 16, 3), np.uint8), Fraction(index, 25), Fraction(1, 25))
    os.kill(os.getpid(), 9)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


@pytest.mark.parametrize("name", ["out.mkv", "frames/%05d.png"])
def test_a_later_run_sweeps(tmp_path: Path, name: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    (left,) = hidden(tmp_path)
    alive = left.replace(f"-{left.split('-')[2].split('.')[0]}", f"-{os.getppid()}")
    elsewhere = left.replace("fommctl-", "fommctl-0")
    target = tmp_path / (name.partition("/")[0])
    another = temporary_path(target.with_name("another")).name.replace(f"-{os.getpid()}-", "-999999999-")
    for other in (alive, elsewhere, ".notes.txt", another):
        (tmp_path / other).write_text("of somebody else")
    before = set(hidden(tmp_path))
    with Writer(tmp_path / name, width=16, height=16, rate=Fraction(25)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8), Fraction(0), Fraction(1, 25))
    assert before - set(hidden(tmp_path)) == {left}
    assert len(before) == 5


def test_a_folder_that_is_not_there_is_clean(tmp_path: Path) -> None:
    remove_stale_output(tmp_path / "none" / "a.mp4")
    remove_stale_output(tmp_path / "none" / "frames" / "%d.png")
    assert not list(tmp_path.iterdir())
