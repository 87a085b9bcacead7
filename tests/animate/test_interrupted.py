"""An animation that is stopped midway leaves nothing behind."""

import os
import signal
import time

import pytest
from forked_commands import ForkedCommand
from media_factory import write_clip
from shots import portrait

PREPARED = ("--crop", "none")


def start_long_run(folder, out):
    """Start an animation that takes a minute in its own process, and wait until it has begun to write."""
    clip = write_clip(folder / "long.mp4", width=64, height=64, frames=1000)
    arguments = ["animate", folder / "portrait.png", clip, "-o", out, *PREPARED]
    process = ForkedCommand(*arguments)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(".tmp" in entry.name for entry in out.parent.iterdir()):
        assert process.poll() is None, process.communicate()
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
