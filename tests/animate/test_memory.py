"""Memory does not grow with the length of the video, by the system's count of the whole process's peak."""

import sys
from functools import partial
from pathlib import Path

import pytest
from forked_commands import ForkedCommand, note_peak
from media_factory import moving_square, write_clip
from shots import portrait

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"


def peak_megabytes(folder, frames):
    pictures = [moving_square(index, 512, 512) for index in range(24)]
    clip = folder / f"{frames}.mp4"
    write_clip(clip, width=512, height=512, frames=frames, audio=("aac",), draw=lambda index: pictures[index % 24])
    arguments = [
        "animate", folder / "portrait.png", clip, "-o", folder / f"{frames}.mkv", "--crop", "none", "-q",
        "--model", GOLDEN / "vox-tiny.pth.tar", "--preset", GOLDEN / "vox-tiny.model_params.yaml",
    ]  # fmt: skip
    peak = folder / f"{frames}.peak"
    with ForkedCommand(*arguments, limit=partial(note_peak, peak)) as process:
        answer = process.communicate()
    assert process.returncode == 0, answer
    return int(peak.read_text()) / 2**10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_peak_memory_of_40_and_240_frames(tmp_path):
    portrait(tmp_path / "portrait.png")
    short, long = peak_megabytes(tmp_path, 40), peak_megabytes(tmp_path, 240)
    # 200 frames of 0.8 MB.
    assert abs(long - short) < 80
